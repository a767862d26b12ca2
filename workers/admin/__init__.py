"""For people: look a message up, follow events, care for dead letters, rebuild the state."""

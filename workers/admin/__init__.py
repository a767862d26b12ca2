"""`mms-admin`: look up messages, follow events, handle dead letters, rebuild the state."""

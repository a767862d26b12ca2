"""From a batch of postbacks to state and events."""

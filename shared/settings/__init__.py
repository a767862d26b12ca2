"""The settings: where they come from, their units, bounds and defaults."""

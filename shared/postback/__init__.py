"""What a postback means: pure functions from bytes to a normalised postback, record and event."""

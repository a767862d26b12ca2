"""The provider's side of the wire: realistic postbacks, sent and resent as the real one does."""

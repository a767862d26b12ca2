"""The provider's dialects: from the bytes of a body to a mapping of fields."""

"""From a provider's request to a durable answer."""

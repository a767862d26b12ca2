"""Which requests are allowed: the policy of each source and the checks that it needs."""

"""Who may send postbacks: the policy of each source, and the checks that it needs."""

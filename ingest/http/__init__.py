"""The HTTP side: connections with limits, two request paths, responses."""

"""Redis: clients for one server, a cluster or Sentinel, and what their errors mean."""

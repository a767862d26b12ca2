"""The benchmark, compared with common alternatives; `make bench` runs it."""

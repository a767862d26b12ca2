"""Hypothesis for the unit tests: few examples, no deadline, nothing kept on disk."""

from hypothesis import settings

settings.register_profile("unit", max_examples=40, deadline=None, database=None, print_blob=True)
settings.load_profile("unit")

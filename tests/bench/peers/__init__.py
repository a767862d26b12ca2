"""Common alternatives, each written as its own documentation advises.

Those in Python run in a separate virtual environment (`tests/bench/requirements.txt`). For a fair
comparison they share the decoding, the rules and the Lua scripts with the project, and nothing
else. Those in Node (`node`) have the same rules in JavaScript, and copies of the scripts; a test
compares their events with ours. All are at an advantage: they have no spool, no archive, no limit
on waiting requests, no dead letters and no metrics.
"""

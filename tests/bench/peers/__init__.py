"""What people would use instead, each written as its own documentation advises.

They run in a virtual environment of their own (`tests/bench/requirements.txt`) and import from the
project only what both sides must share for a fair comparison: the decoding, the rules and the Lua
script. What they leave out is in their favour: they have no spool, no archive, no limit on waiting
requests, no dead letters and no metrics.
"""

"""Images made on this machine alone, for an engine without a registry: a node of Cassandra, and the base of ours.

`python -m tests.images COMMAND...` makes them and runs the command beside an engine; `make containers` is that with the
tests of the lane.
"""

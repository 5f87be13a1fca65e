"""The pipeline of one check, from the plan of its leaves to its findings."""

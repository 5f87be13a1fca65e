"""A seeded in-memory Cassandra cluster on virtual time: the scanner runs against it thousands of times a minute.

    python -m tests.simulation 4711           tell the story of one seed
    python -m tests.simulation --seeds 10000  run many, print the seeds that fail

values -> storage -> memory (the cluster, as the port shows it) -> histories -> cases -> promises, against the truth.
"""

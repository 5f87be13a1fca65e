"""Prove that the replicas of a Cassandra cluster hold the same rows."""

__version__ = "0.1.0"

"""Tests on a real Cassandra cluster."""

"""A real Cassandra cluster on loopback, started from pip packages alone."""

"""What Cassandra is: tokens, ring, schema, types, rows and digests. Pure values, no I/O."""

"""Replication rules, and whether a node may be taken down."""

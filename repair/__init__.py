"""Reconcile the rows that a check found to differ."""

"""Continuous checks, and their metrics, events, hooks and HTTP."""

"""Continuous checks, and their metrics, events, hooks, HTTP and live page."""

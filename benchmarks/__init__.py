"""Benchmarks on the sandbox: both sides in the same run, as a ratio."""

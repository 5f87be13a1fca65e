"""What `check --repair` and `watch --repair` may do, and do: a check, a repair within bounds, a check again."""

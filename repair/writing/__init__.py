"""How a repair writes: every statement, the port that sends them, and reads at ALL by which the servers merge."""

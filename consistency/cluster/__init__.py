"""How one replica is asked, and how its answer is known to be its own."""

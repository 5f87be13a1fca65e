"""The rules of the house, as tests: each failure names the place and says the remedy."""

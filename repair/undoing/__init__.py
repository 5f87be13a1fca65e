"""How what the journal proves is taken back."""

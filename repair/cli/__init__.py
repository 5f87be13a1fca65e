"""What a user types and sees: `consistency repair`, `consistency sync`, and `check --repair` where it hands over."""

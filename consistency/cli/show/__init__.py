"""What a person sees: terminal, page and browser of findings."""

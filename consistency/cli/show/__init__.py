"""What a person sees: terminal, page, live page of a watch, and browser of findings."""

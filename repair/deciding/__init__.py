"""What is to be done with a row, by which rule, and what that does to it: evidence in, a decision out, no writes."""

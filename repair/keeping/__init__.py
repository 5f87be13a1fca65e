"""What is kept in files: the plan before anything is done, the journal of all that is done."""

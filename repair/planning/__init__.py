"""How a plan is made: every row of a findings file read anew and decided, by one process or several."""

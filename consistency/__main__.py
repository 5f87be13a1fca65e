"""`python -m consistency` is the `consistency` command."""

from consistency.cli import main

main(prog_name="consistency")

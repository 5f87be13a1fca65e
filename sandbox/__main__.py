"""Run the sandbox commands without the main program."""

from sandbox.cli import sandbox

sandbox(prog_name="python -m sandbox")

"""`python -m cachemw …`: the command line, where its script is not on the path."""

from cachemw.cli import main

main(prog_name="python -m cachemw")

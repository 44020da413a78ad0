"""`python -m tailorset.cli`: the command without an entry point."""

from tailorset.cli import app

app()

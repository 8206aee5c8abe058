"""The command line: `featherfit`, or `python -m featherfit`."""

from featherfit.cli.entry import main

__all__ = ["main"]

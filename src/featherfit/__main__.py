"""`python -m featherfit` is `featherfit`."""

import sys

from featherfit.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m ops`: what `./run` calls once the tools are there."""

import sys

from ops.cli import main

if __name__ == "__main__":
    sys.exit(main())

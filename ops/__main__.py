"""`python -m ops COMMAND`: what `./run COMMAND` runs after its set-up."""

import sys

from ops.cli import main

if __name__ == "__main__":
    sys.exit(main())

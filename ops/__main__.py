"""`python -m doorstep.stack`: what `./run` calls once the tools are there."""

import sys

from doorstep.stack.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m device`: a device whose fixes come on standard input."""

import sys

from device.stdin_device import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m device`: a device that reads its fixes from standard input."""

import sys

from device.stdin_device import main

if __name__ == "__main__":
    sys.exit(main())

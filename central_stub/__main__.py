"""`python -m central_stub` is the `central-stub` command."""

import sys

from central_stub.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m store_cache` is the console script `store-cache`."""

import sys

from store_cache.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

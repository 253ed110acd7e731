"""The console script `store-cache`, which is `python -m store_cache` too."""

import signal
import sys


def main() -> int:
    if sys.argv[1:2] == ["serve"]:
        # It means "reload", and must not end the process before the imports are done.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from store_cache.cli.main import main as run  # noqa: PLC0415

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

"""Record everything again: `python -m tests.golden.record`.

Do so only if the behaviour is meant to change, and check what `git diff` then shows. `DATA_DIR`s
are not written: that is for `python -m tests.golden.make_data_dir`, and comes first.
"""

from __future__ import annotations

from tests.golden import examples, log_lines, opened, situations
from tests.golden.compare import record

RECORDINGS = opened.RECORDINGS | situations.RECORDINGS | log_lines.RECORDINGS


def main() -> None:
    for name, found in RECORDINGS.items():
        record(name, found())
    examples.record()


if __name__ == "__main__":
    main()

"""``python -m bgx`` and the console script."""

from __future__ import annotations

import sys


def main() -> None:
    from bgx.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()

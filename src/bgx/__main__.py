"""``python -m bgx`` and the console script."""

from __future__ import annotations

import os


def main() -> None:
    from bgx.cli.main import run

    code = run()
    # All is written and flushed. To take the process apart piece by piece would take longer than to
    # decode a photo.
    os._exit(code)


if __name__ == "__main__":
    main()

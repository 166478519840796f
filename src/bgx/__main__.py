"""``python -m bgx`` and the console script."""

from __future__ import annotations

import os
import signal


def main() -> None:
    # Who is asked to end says first what is left undone, as after Ctrl-C.
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # not on Windows
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)

    from bgx.cli.main import run

    code = run()
    # All is written and flushed. To take the process apart piece by piece would take longer than to
    # decode a photo.
    os._exit(code)


if __name__ == "__main__":
    main()

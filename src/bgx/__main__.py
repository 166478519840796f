"""``python -m bgx`` and the console script."""

from __future__ import annotations

import os
import signal


def main() -> None:
    # SIGTERM and SIGHUP end bgx as Ctrl-C does: it first reports which pictures are not done.
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # not on Windows
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)

    try:
        from bgx.cli.main import run

        code = run()
    except KeyboardInterrupt:  # while that was being imported; run() reports its own
        os.write(2, b"bgx: interrupted\n")
        code = 130  # ExitCode.INTERRUPTED, whose module may not be imported yet
    # Everything is written and flushed. An ordinary exit would take the interpreter apart, which
    # takes longer than decoding a photo.
    os._exit(code)


if __name__ == "__main__":
    main()

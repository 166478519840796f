"""rembg's modes over one list of pictures; run by rembg's own interpreter, from quality.py.

    python rembg_modes.py MODEL FOLDER < list

Each line of the list is the path of a picture. Writes FOLDER/NUMBER-MODE.png and, as JSON to the
standard output, the seconds of each by mode, from file to cut-out in memory.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from rembg import new_session, remove

MODES: dict[str, dict[str, bool]] = {
    "(default)": {},
    "-a": {"alpha_matting": True},
    "-ppm": {"post_process_mask": True},
}


def cut_out(path: str, session: Any, options: dict[str, bool]) -> Image.Image:
    with Image.open(path) as opened:
        cut: Image.Image = remove(opened.convert("RGB"), session=session, **options)
    return cut


def main() -> None:
    model, folder = sys.argv[1], Path(sys.argv[2])
    session = new_session(model)
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    paths = sys.stdin.read().splitlines()
    # Warm up: compilation at first use must not be measured.
    for options in MODES.values():
        cut_out(paths[0], session, options)
    for number, path in enumerate(paths):
        for mode, options in MODES.items():
            start = time.perf_counter()
            cut = cut_out(path, session, options)
            seconds[mode].append(time.perf_counter() - start)
            cut.save(folder / f"{number}-{mode}.png", compress_level=1)
    json.dump(seconds, sys.stdout)


if __name__ == "__main__":
    main()

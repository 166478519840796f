"""rembg's modes over one list of pictures; run by rembg's own interpreter, from quality.py.

    python rembg_modes.py MODEL FOLDER < list

Each line of the list is the path of a picture. Writes FOLDER/NUMBER-MODE.png and, as JSON to the
standard output, the seconds of each by mode.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from PIL import Image
from rembg import new_session, remove

MODES = {
    "default": {},
    "-a": {"alpha_matting": True},
    "-ppm": {"post_process_mask": True},
}


def main() -> None:
    model, folder = sys.argv[1], Path(sys.argv[2])
    session = new_session(model)
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    # What is compiled on first use is compiled before anything is measured.
    for options in MODES.values():
        remove(Image.new("RGB", (64, 64)), session=session, **options)
    for number, path in enumerate(sys.stdin.read().splitlines()):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        for mode, options in MODES.items():
            start = time.perf_counter()
            cut = remove(picture, session=session, **options)
            seconds[mode].append(time.perf_counter() - start)
            cut.save(folder / f"{number}-{mode}.png", compress_level=1)
    json.dump(seconds, sys.stdout)


if __name__ == "__main__":
    main()

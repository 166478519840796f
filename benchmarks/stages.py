"""Measures each step of one photo, from file to file, on one core.

    python benchmarks/stages.py --photos 12mp

The steps are bgx's own functions, called one after the other as `bgx batch` does, with one thread;
the resulting files are the same. Then come the steps that are done only with some options, and the
start-up time of the process: the time of `bgx remove` with a tiny photo, minus that photo's own
steps. All figures are medians over photos and rounds.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import measure
import photos
import vs_rembg
from bgx.allocator import keep_memory
from bgx.image.clean import clean_matte
from bgx.image.compose import compose_picture
from bgx.image.encode import encode_picture
from bgx.image.foreground import restore_foreground
from bgx.image.inside import fill_inside
from bgx.image.matte import measure_matte, multiply_alpha, upsample_matte
from bgx.image.read import prepare_process, read_photo
from bgx.image.refine import refine_matte
from bgx.image.trust import measure_trust
from bgx.run.picture import make_matte, make_tensor
from bgx.settings import ReadSettings
from bgx.storage import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from bgx.run.picture import Network

MODEL = vs_rembg.MODEL
TINY = (64, 48)
"""Width and height of a photo whose steps take negligible time compared with startup, pixels."""

STEPS = (
    "read",
    "tensor",
    "network",
    "stretch, trust",
    "enlarge",
    "cut out",
    "measure",
    "PNG",
    "write file",
)
OPTIONAL = {
    "clean": "--matte clean",
    "refine": "in place of enlarge, unless --no-refine",
    "restore colours": "unless --no-refine or --keep-colours",
}
"""Optional steps, each with its option; STEPS are those of --no-refine."""


def walk(path: Path, target: Path, network: Network) -> dict[str, float]:
    """Cut out one photo into target; milliseconds of STEPS and OPTIONAL."""
    taken: dict[str, float] = {}
    entry = network.entry
    name = str(path)
    with _timed(taken, "read"), path.open("rb") as stream:
        photo = read_photo(stream, ReadSettings(), name=name)
    with _timed(taken, "tensor"):
        tensor = make_tensor(photo, entry)
    with _timed(taken, "network"):
        [values] = network.run(tensor)
    with _timed(taken, "stretch, trust"):
        matte = make_matte(values, entry)
        measure_trust(values, matte)
    with _timed(taken, "enlarge"):
        alpha = multiply_alpha(upsample_matte(matte, photo.size), photo.alpha)
    # Before compose, which reuses the photo's pixels.
    taken |= _walk_aside(photo.image.copy(), photo.working, matte)
    with _timed(taken, "cut out"):
        picture = compose_picture(photo.image, alpha, None, None)
    with _timed(taken, "measure"):
        measure_matte(alpha)
    with _timed(taken, "PNG"):
        pieces = encode_picture(picture, "png", name=name, icc=photo.icc, dpi=photo.dpi)
    with _timed(taken, "write file"):
        open_file(target).write(*pieces)
    return taken


def _walk_aside(
    image: Image.Image, working: Image.Image, matte: NDArray[np.float32]
) -> dict[str, float]:
    """Milliseconds of OPTIONAL. image: is changed."""
    taken: dict[str, float] = {}
    with _timed(taken, "clean"):
        clean_matte(matte)
    with _timed(taken, "refine"):
        alpha = refine_matte(fill_inside(matte, working), working, image)
    with _timed(taken, "restore colours"):
        restore_foreground(image, alpha, working)
    return taken


@contextmanager
def _timed(taken: dict[str, float], step: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    taken[step] = 1000 * (time.perf_counter() - start)


def start_up(bgx: vs_rembg.Tool, photo: Path, folder: Path, network: Network) -> float:
    """Milliseconds of `bgx remove` less those of the photo's steps. photo: should be tiny."""
    target = folder / "tiny.png"
    target.unlink(missing_ok=True)  # bgx would leave it as it is
    whole = 1000 * bgx.cut_one(photo, target).seconds
    taken = walk(photo, target, network)
    return whole - sum(taken[step] for step in STEPS)


def summarize(
    rounds: Sequence[Sequence[dict[str, float]]], start_ups: Sequence[float]
) -> dict[str, Any]:
    """Medians in milliseconds, and each step's share of the sum of STEPS.

    rounds: by round and photo what :func:`walk` returned.
    """
    middle = {
        step: statistics.median(taken[step] for one in rounds for taken in one)
        for step in (*STEPS, *OPTIONAL)
    }
    whole = sum(middle[step] for step in STEPS)
    return {
        "steps": {step: {"ms": middle[step], "share": middle[step] / whole} for step in STEPS},
        "one photo": whole,
        "optional": {
            step: {"ms": middle[step], "share": middle[step] / whole} for step in OPTIONAL
        },
        "start-up": statistics.median(start_ups),
    }


def describe(summary: dict[str, Any]) -> str:
    lines = [f"{'':18}{'ms':>9}{'share':>8}"]
    lines += [_row(step, row) for step, row in summary["steps"].items()]
    lines.append(_row("one photo", {"ms": summary["one photo"], "share": 1.0}))
    lines.append("when asked for:")
    lines += [f"{_row(step, row)}  {OPTIONAL[step]}" for step, row in summary["optional"].items()]
    lines.append(f"{'start-up':18}{summary['start-up']:9.1f}          once a process")
    return "\n".join(lines)


def _row(name: str, row: dict[str, float]) -> str:
    return f"{name:18}{row['ms']:9.1f}{row['share']:8.1%}"


def main() -> None:
    asked = vs_rembg.make_parser(__doc__, count=6, repeats=5).parse_args()
    size = photos.SIZES[asked.photos]
    model_file = asked.model_file or vs_rembg.known_model_file()
    prepare_process()
    keep_memory()
    rounds, start_ups = [], []
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as name:
        folder = Path(name)
        bgx = vs_rembg.bgx_tool(folder / "bgx-home", model_file, ("--threads", "1"))
        network = vs_rembg.open_network(folder / "bgx-home", threads=1)
        paths = photos.write(folder / "photos", size, asked.n)
        [tiny] = photos.write(folder / "tiny", TINY, 1)
        # Warm up: one-time setup must not be measured.
        walk(paths[0], folder / "cut.png", network)
        start_up(bgx, tiny, folder, network)
        for _ in tqdm(range(asked.repeats), leave=False):
            rounds.append([walk(path, folder / "cut.png", network) for path in paths])
            start_ups.append(start_up(bgx, tiny, folder, network))
    summary = summarize(rounds, start_ups)
    record = measure.make_record(
        "stages",
        settings={
            "model": MODEL,
            "precision": "fp32",
            "threads": 1,
            "photos": {"width": size[0], "height": size[1], "count": asked.n},
            "rounds": asked.repeats,
        },
        versions={"bgx": measure.versions()},
        measurements={"rounds": rounds, "start_ups": start_ups},
        summary=summary,
    )
    print(f"{asked.n} photos of {size[0]} x {size[1]}, {asked.repeats} rounds, {MODEL}, one core")
    print(describe(summary))
    measure.conclude(record, asked.json)


if __name__ == "__main__":
    main()

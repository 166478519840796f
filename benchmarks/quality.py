"""How good the cut-outs are: against true masks, true alpha and true colours, beside rembg.

    python benchmarks/quality.py DIR... --model u2netp --rembg-env ENV --json quality.json

Each DIR has images/ and, of the same stems, masks/ (binary) or alpha/ (true alpha). On masks it
takes mean absolute error, the highest F measure of mean precision and recall (beta squared 0.3),
S-measure (Fan et al., ICCV 2017) and IoU; on alpha also SAD / 1000, mean squared error, and within
EDGE pixels of where the true alpha lies between 0 and 1 the mean error of alpha (edge) and of its
gradient. On drawn scenes, whose foreground is known, it takes the mean colour error, 0..255, in the
soft band of the cut-out put on another background.

"plain" is the network's own matte enlarged by Lanczos with the photo's own colours, "refined" what
bgx does by default. Seconds are those of one picture in memory, network included, on one thread for
bgx and all for rembg, and "matting" is what a mode takes beyond its tool's plain one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

import measure
import photos
import vs_rembg
from bgx.image.clean import clean_matte
from bgx.image.foreground import restore_foreground
from bgx.image.matte import stretch_map, upsample_matte
from bgx.image.read import read_photo
from bgx.image.refine import refine_matte
from bgx.image.tensor import fill_tensor
from bgx.model.session import open_session
from bgx.model.store import Store
from bgx.settings import DeviceSettings, ModelSettings, ReadSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from bgx.model.session import Session

    Map = NDArray[np.float32]

EDGE = 5
"""Pixels around the true soft band that count as edge."""

SCENE = (800, 600)
BESIDE = (40, 160, 90)
"""Colour behind the pictures for the eye."""


@dataclass(frozen=True)
class Case:
    """A photo and the truth about it. truth: float32 [height, width], 0..1."""

    name: str
    path: Path
    truth: Map
    binary: bool


@dataclass(frozen=True)
class Scene:
    """A drawn photo. foreground, other (a background it was not drawn on): [height, width, 3]."""

    photo: Image.Image
    alpha: Map
    foreground: Map
    other: Map


@dataclass
class Result:
    """What one mode made of all pictures of a set: RGBA cut-outs and their seconds."""

    cutouts: list[Image.Image] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


# The sets.


def read_set(folder: Path, limit: int | None = None) -> list[Case]:
    """All photos of a folder that have a mask or an alpha."""
    found = []
    for kind in ("masks", "alpha"):
        for truth in sorted((folder / kind).glob("*.png")):
            photo = next((folder / "images").glob(f"{truth.stem}.*"), None)
            if photo is None:
                continue
            with Image.open(truth) as picture:
                values = np.asarray(picture.convert("L"), np.float32) / np.float32(255)
            if kind == "masks":
                values = (values > 0.5).astype(np.float32)
            found.append(Case(truth.stem, photo, values, kind == "masks"))
    if not found:
        raise SystemExit(f"{folder}: no images/ with masks/ or alpha/ of the same stems")
    return found[:limit]


def draw_scenes(count: int) -> list[Scene]:
    """Scenes with known colours, each subject in front of two backgrounds."""
    scenes = []
    for seed in range(count):
        generator = np.random.default_rng([seed, 7])
        _, drawn = photos.render(*SCENE, seed)
        alpha = np.asarray(drawn, np.float32) / np.float32(255)
        tones = [(20, 140), (130, 250)]
        foreground = _draw_colours(generator, *tones[seed % 2], grain=20)
        one = _draw_colours(generator, *tones[1 - seed % 2], grain=10)
        two = _draw_colours(generator, 0, 255, grain=10)
        for behind, other in ((one, two), (two, one)):
            photo = _lay(foreground, alpha, behind)
            pixels = np.rint(photo).astype(np.uint8)
            scenes.append(Scene(Image.fromarray(pixels), alpha, foreground, other))
    return scenes


def _draw_colours(generator: np.random.Generator, low: int, high: int, grain: int) -> Map:
    """Wide patches of colour with grain, 0..255."""
    width, height = SCENE
    patches = Image.fromarray(generator.uniform(low, high, (3, 4, 3)).astype(np.uint8))
    cells = generator.integers(0, 256, (height // 3, width // 3), np.uint8)
    colours = np.asarray(patches.resize(SCENE, Image.Resampling.BICUBIC), np.float32)
    noise = np.asarray(Image.fromarray(cells).resize(SCENE, Image.Resampling.BICUBIC), np.float32)
    drawn: Map = (colours + (noise[..., None] / 128 - 1) * grain).clip(0, 255)
    return drawn


def _lay(colours: Map, alpha: Map, behind: Map) -> Map:
    return colours * alpha[..., None] + behind * (1 - alpha[..., None])


# The tools.


def cut_with_bgx(paths: Sequence[Path], session: Session) -> dict[str, Result]:
    """bgx's modes over pictures, by mode."""
    entry = session.entry
    width, height = entry.input
    results = {"bgx plain": Result(), "bgx refined": Result()}
    for path in tqdm(paths, "bgx", leave=False):
        photo = read_photo(path, ReadSettings(), name=str(path))
        start = time.perf_counter()
        tensor = np.empty((1, 3, height, width), np.float32)
        fill_tensor(photo.working, tensor[0], mean=entry.mean, std=entry.std, scale=entry.scale)
        matte = session.run(tensor)[0]
        if entry.stretch:
            matte = stretch_map(matte)
        network = time.perf_counter() - start

        start = time.perf_counter()
        plain = photo.image.copy()
        plain.putalpha(upsample_matte(matte, plain.size))
        _note(results["bgx plain"], plain, network + time.perf_counter() - start)

        start = time.perf_counter()
        refined = photo.image.copy()
        alpha = refine_matte(clean_matte(matte), photo.working, refined)
        restore_foreground(refined, alpha, photo.working)
        refined.putalpha(alpha)
        _note(results["bgx refined"], refined, network + time.perf_counter() - start)
    return results


def _note(result: Result, cutout: Image.Image, seconds: float) -> None:
    result.cutouts.append(cutout)
    result.seconds.append(seconds)


def cut_with_rembg(
    paths: Sequence[Path], python: Path, model: str, model_file: Path, folder: Path
) -> dict[str, Result]:
    """rembg's modes over pictures, by mode."""
    home, out = folder / "home", folder / "out"
    home.mkdir(parents=True)
    out.mkdir()
    shutil.copy(model_file, home / f"{model}.onnx")
    known = {"U2NET_HOME": str(home), "MODEL_CHECKSUM_DISABLED": "1"}
    script = Path(__file__).with_name("rembg_modes.py")
    listed = "\n".join(str(path.resolve()) for path in paths)
    ended = subprocess.run(
        [python, script, model, out],
        input=listed,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | known,
    )
    # Its libraries may have something to say before.
    seconds: dict[str, list[float]] = json.loads(ended.stdout[ended.stdout.rindex('{"default"') :])
    results = {}
    for mode, taken in seconds.items():
        cutouts = [Image.open(out / f"{number}-{mode}.png") for number in range(len(paths))]
        results[f"rembg {mode}"] = Result([cutout.convert("RGBA") for cutout in cutouts], taken)
    return results


# The measures. alpha and truth: float32 [height, width], 0..1.


def find_edge(truth: Map) -> NDArray[np.bool_]:
    """Where the true alpha lies between 0 and 1, widened by EDGE pixels."""
    soft = (truth > 0.02) & (truth < 0.98)
    widened = Image.fromarray(soft.astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(EDGE))
    return np.asarray(widened) > 0


def measure_alpha(alpha: Map, truth: Map) -> dict[str, float]:
    """SAD / 1000, MSE, and the errors of alpha and its gradient at the edge."""
    error = np.abs(alpha - truth)
    down, across = np.gradient(alpha - truth)
    edge = find_edge(truth)
    return {
        "SAD": float(error.sum()) / 1000,
        "MSE": float((error * error).mean()),
        "edge": float(error[edge].mean()) if edge.any() else 0.0,
        "gradient": float(np.hypot(down, across)[edge].mean()) if edge.any() else 0.0,
    }


def measure_mask(alpha: Map, truth: Map) -> dict[str, float]:
    """Mean absolute error, S-measure and IoU at one half."""
    found, true = alpha >= 0.5, truth >= 0.5
    union = np.count_nonzero(found | true)
    return {
        "MAE": float(np.abs(alpha - truth).mean()),
        "S": structure_measure(alpha, true),
        "IoU": np.count_nonzero(found & true) / union if union else 1.0,
    }


def max_f(alphas: Iterable[Map], truths: Iterable[Map]) -> float:
    """The highest F over 256 thresholds, of precision and recall averaged over the pictures."""
    precisions, recalls = [], []
    for alpha, truth in zip(alphas, truths, strict=True):
        levels, true = np.rint(alpha * 255).astype(np.uint8), truth >= 0.5
        hits = np.bincount(levels[true], minlength=256)[::-1].cumsum()
        misses = np.bincount(levels[~true], minlength=256)[::-1].cumsum()
        precisions.append(hits / np.maximum(hits + misses, 1))
        recalls.append(hits / max(1, np.count_nonzero(true)))
    precision, recall = np.mean(precisions, axis=0), np.mean(recalls, axis=0)
    return float((1.3 * precision * recall / np.maximum(0.3 * precision + recall, 1e-9)).max())


def structure_measure(alpha: Map, true: NDArray[np.bool_]) -> float:
    """Fan, Cheng, Liu, Li and Borji, "Structure-measure", ICCV 2017, with alpha = 1/2."""
    share = float(true.mean())
    if share in (0.0, 1.0):
        return float(1 - np.abs(alpha - share).mean())
    objects = share * _object_score(alpha[true]) + (1 - share) * _object_score(1 - alpha[~true])
    rows, columns = np.nonzero(true)
    y, x = round(float(rows.mean())) + 1, round(float(columns.mean())) + 1
    regions = 0.0
    for part in (np.s_[:y, :x], np.s_[:y, x:], np.s_[y:, :x], np.s_[y:, x:]):
        if true[part].size:
            weight = true[part].size / true.size
            regions += weight * _similarity(alpha[part], true[part].astype(np.float32))
    return max(0.0, 0.5 * objects + 0.5 * regions)


def _object_score(values: Map) -> float:
    mean = float(values.mean())
    return 2 * mean / (mean * mean + 1 + float(values.std()) + 1e-9)


def _similarity(one: Map, other: Map) -> float:
    """SSIM over a whole region, as the measure's authors have it."""
    a, b = float(one.mean()), float(other.mean())
    freedom = max(1, one.size - 1)
    spread = float(((one - a) ** 2).sum() + ((other - b) ** 2).sum()) / freedom
    together = float(((one - a) * (other - b)).sum()) / freedom
    above, below = 4 * a * b * together, (a * a + b * b) * spread
    if above:
        return above / (below + 1e-9)
    return 1.0 if below == 0 else 0.0


def measure_colours(cutout: Image.Image, scene: Scene) -> float:
    """Mean error, 0..255, of the cut-out on the other background, where the subject is soft."""
    pixels = np.asarray(cutout, np.float32)
    composite = _lay(pixels[..., :3], pixels[..., 3] / 255, scene.other)
    error = np.abs(composite - _lay(scene.foreground, scene.alpha, scene.other))
    return float(error[(scene.alpha > 0.02) & (scene.alpha < 0.98)].mean())


def alpha_of(cutout: Image.Image) -> Map:
    return np.asarray(cutout.getchannel("A"), np.float32) / np.float32(255)


# What is made of them.


def summarize(cases: Sequence[Case], results: dict[str, Result]) -> dict[str, dict[str, float]]:
    """Means over a set, by mode."""
    summary = {}
    for mode, result in results.items():
        alphas = [alpha_of(cutout) for cutout in result.cutouts]
        rows = []
        for alpha, case in zip(alphas, cases, strict=True):
            row = measure_mask(alpha, case.truth)
            if not case.binary:
                row |= measure_alpha(alpha, case.truth)
            rows.append(row)
        means = {name: statistics.mean(row[name] for row in rows) for name in rows[0]}
        means["max F"] = max_f(alphas, (case.truth for case in cases))
        summary[mode] = means | _time(mode, results)
    return summary


def _time(mode: str, results: dict[str, Result]) -> dict[str, float]:
    plain = results["bgx plain" if mode.startswith("bgx") else "rembg default"]
    taken = results[mode].seconds
    beyond = [a - b for a, b in zip(taken, plain.seconds, strict=True)]
    return {"seconds": statistics.median(taken), "matting": statistics.median(beyond)}


def describe(title: str, summary: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(summary.values())))
    lines = [f"{title:22}" + "".join(f"{name:>10}" for name in names)]
    for mode, row in summary.items():
        lines.append(f"{mode:22}" + "".join(f"{row[name]:10.4f}" for name in names))
    return "\n".join(lines)


def write_pictures(
    folder: Path, cases: Sequence[Case], results: dict[str, Result], *, side: int = 80
) -> None:
    """Where the modes differ most, at 400 %: the photo, then every mode, on a plain colour."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(cases):
        cutouts = [result.cutouts[number] for result in results.values()]
        doubt = np.ptp([alpha_of(cutout) for cutout in cutouts], axis=0)
        spread = Image.fromarray((doubt * 255).astype(np.uint8)).filter(
            ImageFilter.BoxBlur(side / 2)
        )
        top, left = np.unravel_index(np.asarray(spread).argmax(), doubt.shape)
        height, width = doubt.shape
        x = int(min(max(0, left - side // 2), max(0, width - side)))
        y = int(min(max(0, top - side // 2), max(0, height - side)))
        with Image.open(case.path) as opened:
            views = [opened.convert("RGB")]
        for cutout in cutouts:
            view = Image.new("RGB", cutout.size, BESIDE)
            view.paste(cutout, mask=cutout.getchannel("A"))
            views.append(view)
        strip = Image.new("RGB", (len(views) * (4 * side + 4), 4 * side), "white")
        for place, view in enumerate(views):
            crop = view.crop((x, y, x + side, y + side))
            enlarged = crop.resize((4 * side, 4 * side), Image.Resampling.NEAREST)
            strip.paste(enlarged, (place * (4 * side + 4), 0))
        strip.save(folder / f"{case.path.parents[1].name}-{case.name}.png")


def main() -> None:
    asked = _parse()
    store = Store(ModelSettings.from_environment())
    named = store.resolve(str(asked.model_file or asked.model), store.registry())
    session = open_session(
        named, DeviceSettings("cpu", threads=1, precision="fp32"), store, pictures=1
    )
    python = vs_rembg.rembg_python(asked.rembg_env) if asked.rembg_env else None

    with tempfile.TemporaryDirectory(prefix="bgx-quality-") as name:
        work = Path(name)

        def cut(paths: Sequence[Path], title: str) -> dict[str, Result]:
            results = cut_with_bgx(paths, session)
            if python is not None:
                file = asked.model_file or Path(named.path)
                results |= cut_with_rembg(paths, python, asked.model, file, work / title)
            return results

        summaries: dict[str, Any] = {}
        for folder in asked.folders:
            cases = read_set(folder, asked.n)
            results = cut([case.path for case in cases], folder.name)
            summaries[folder.name] = summarize(cases, results)
            print(describe(f"{folder.name} ({len(cases)})", summaries[folder.name]), flush=True)
            if asked.pictures:
                write_pictures(asked.pictures, cases, results)
        if asked.scenes:
            scenes = draw_scenes(asked.scenes)
            paths = [work / f"scene-{number}.png" for number in range(len(scenes))]
            for path, scene in zip(paths, scenes, strict=True):
                scene.photo.save(path, compress_level=1)
            results = cut(paths, "scenes")
            summaries["scenes"] = {
                mode: {"colour": statistics.mean(map(measure_colours, result.cutouts, scenes))}
                for mode, result in results.items()
            }
            print(describe(f"scenes ({len(scenes)})", summaries["scenes"]))

    tools = {"bgx": Path(sys.executable)} | ({"rembg": python} if python else {})
    record = measure.make_record(
        "quality",
        settings={"model": asked.model, "folders": [folder.name for folder in asked.folders]},
        versions={
            tool: measure.versions(interpreter, ("rembg", *measure.PACKAGES))
            for tool, interpreter in tools.items()
        },
        measurements={},
        summary=summaries,
    )
    print(measure.describe_origin(record))
    if asked.json:
        measure.write_record(asked.json, record)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", metavar="DIR")
    parser.add_argument("--model", default="u2netp", help="network of both (default: u2netp)")
    parser.add_argument("--model-file", type=Path, help="its file (default: bgx's own)")
    parser.add_argument("--rembg-env", type=Path, help="virtual environment that has rembg")
    parser.add_argument("--scenes", type=int, default=6, help="drawn scenes (default: 6)")
    parser.add_argument("-n", type=int, help="at most this many photos of a folder")
    parser.add_argument("--pictures", type=Path, help="write crops at 400 %% into this folder")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()

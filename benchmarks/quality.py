"""Measures the quality of cut-outs, and of rembg's, with true masks, true alpha and true colours.

    python benchmarks/quality.py DIR... --model u2netp --rembg-env ENV --json quality.json
    python benchmarks/quality.py DIR... --rembg-env ENV --json quality.json --timing-photos 5

Each DIR has images/ and, with the same stems, masks/ (binary) or alpha/ (true alpha). With masks it
measures mean absolute error, the highest F measure of mean precision and recall (beta squared 0.3),
S-measure (Fan et al., ICCV 2017) and IoU; with alpha also SAD / 1000, mean squared error, and the
mean errors of alpha (edge) and of its gradient within EDGE pixels of where the true alpha is
between 0 and 1. On drawn scenes, whose foreground is known, it measures the mean colour error,
0..255, in the soft edges of the cut-out on another background. Over all photos
of a folder it measures holes, the share of the area of true holes that is transparent, and veil,
the share of the true subjects' inside that is half transparent; also on drawn shapes: rings, wheels
and frames with a patch nearly of the background's colour.

Modes are named by the options that select them. "bgx (default)" has refined edges and the subject's
colours; "bgx --no-refine" is the network's own matte enlarged by Lanczos, with the photo's colours,
as in rembg; "bgx --matte solid" leaves only edges half transparent. These run in float32; "bgx
--no-refine --precision int8" uses the 8-bit copy made by `bgx models optimize`, if bgx's folder has
one.

Seconds are from file to cut-out in memory, with all cores on one photo and the network loaded
before: the median over a folder; "of -a" is the median share of the time of `rembg -a` for the same
photo. The second command above, for a quiet machine, measures the times of a few photos of each
folder again, takes the shortest of three, and leaves all other figures of the record unchanged.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from tqdm import tqdm

import measure
import photos
import vs_rembg
from bgx.errors import MissingModelError
from bgx.image.regions import label_regions
from bgx.model.opening import open_session
from bgx.model.store import Store
from bgx.options import OutputSettings
from bgx.run.batch import wait_for
from bgx.run.engine import Engine
from bgx.run.outcome import Failed, Job
from bgx.run.recipe import Recipe
from bgx.settings import DeviceSettings, ModelSettings, ReadSettings
from bgx.storage import open_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from bgx.model.store import ModelFile

    Map = NDArray[np.float32]

PLAIN = "bgx --no-refine"
DEFAULT = "bgx (default)"
SOLID = "bgx --matte solid"
MODES = {
    PLAIN: OutputSettings(matte="raw", refine=False),
    DEFAULT: OutputSettings(matte="raw", refine=True),
    SOLID: OutputSettings(matte="solid", refine=True),
}
INT8 = "bgx --no-refine --precision int8"
OPTIONS = {
    PLAIN: "--matte raw --no-refine --precision fp32",
    DEFAULT: "--matte raw --refine --precision fp32",
    SOLID: "--matte solid --refine --precision fp32",
    INT8: "--matte raw --no-refine --precision int8",
}
"""bgx's modes in full."""

SLOWEST = "rembg -a"
"""The mode that the other modes' times are compared with."""

EDGE = 5
"""Pixels around the true soft band that count as edge."""

ROUNDS = 3
"""Of which --timing-photos takes the least."""

VEIL = (0.05, 0.95)
"""Alpha between these is half transparent."""

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
    """One mode's RGBA cut-outs of all pictures of a set, and the seconds of each."""

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


def draw_shapes(count: int) -> list[Scene]:
    """Subjects with holes. A patch inside has four fifths of the background's colour."""
    return [_draw_shape(seed) for seed in range(count)]


def _draw_shape(seed: int) -> Scene:
    generator = np.random.default_rng([seed, 11])
    scale = photos.OVERSAMPLING
    width, height = (side * scale for side in SCENE)
    outline = Image.new("L", (width, height))
    pen = ImageDraw.Draw(outline)
    x, y = width / 2 + generator.uniform(-80, 80), height / 2
    radius = generator.uniform(0.32, 0.4) * height
    inner = radius * generator.uniform(0.45, 0.7)
    if seed % 3 == 2:
        pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=255)
        pen.rectangle((x - inner, y - inner, x + inner, y + inner), fill=0)
    else:
        pen.circle((x, y), radius, fill=255)
        pen.circle((x, y), inner, fill=0)
    if seed % 3 == 1:
        for turn in np.arange(6) * np.pi / 3 + generator.uniform(0, 1):
            end = (x + inner * np.cos(turn), y + inner * np.sin(turn))
            pen.line((x, y, *end), fill=255, width=40)
    alpha = np.asarray(outline.resize(SCENE, Image.Resampling.BOX), np.float32) / np.float32(255)
    tones = [(20, 140), (130, 250)]
    foreground = _draw_colours(generator, *tones[seed % 2], grain=20)
    behind = _draw_colours(generator, *tones[1 - seed % 2], grain=10)
    patch = Image.new("L", SCENE)
    middle, turn = (radius + inner) / 2 / scale, generator.uniform(0, 6.28)
    at = (x / scale + middle * np.cos(turn), y / scale + middle * np.sin(turn))
    ImageDraw.Draw(patch).circle(at, (radius - inner) / scale / 4, fill=204)
    share = np.asarray(patch, np.float32) / np.float32(255)
    foreground = _lay(behind[::-1, ::-1], share, foreground)
    photo = Image.fromarray(np.rint(_lay(foreground, alpha, behind)).astype(np.uint8))
    return Scene(photo, alpha, foreground, behind)


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


@dataclass(frozen=True)
class Mode:
    """A way in which bgx can cut out a picture. precision: of its network."""

    engine: Engine
    recipe: Recipe
    precision: str

    def cut(self, path: Path) -> Image.Image:
        job = Job(open_file(path))
        outcome = wait_for(self.engine.submit(job, self.recipe, alone=True))
        if isinstance(outcome, Failed):
            raise outcome.error
        assert outcome.cutout is not None
        return outcome.cutout.image


def open_modes(file: ModelFile, store: Store) -> dict[str, Mode]:
    """bgx's modes, with the 8-bit one where the store has an 8-bit copy of the file."""
    fine = open_session(file, DeviceSettings("cpu", precision="fp32"), store, pictures=1)
    recipes = {mode: Recipe(ReadSettings(), output) for mode, output in MODES.items()}
    engine = Engine(lambda alone: fine)
    modes = {mode: Mode(engine, recipe, fine.precision) for mode, recipe in recipes.items()}
    try:
        coarse = open_session(file, DeviceSettings("cpu", precision="int8"), store, pictures=1)
    except MissingModelError as error:
        print(f"{INT8} is left out: {error}")
    else:
        modes[INT8] = Mode(Engine(lambda alone: coarse), recipes[PLAIN], coarse.precision)
    return modes


def cut_with_bgx(paths: Sequence[Path], modes: dict[str, Mode]) -> dict[str, Result]:
    """bgx's modes over pictures, by mode."""
    results = {mode: Result() for mode in modes}
    # Warm up: one-time setup must not be measured.
    for way in modes.values():
        way.cut(paths[0])
    for path in tqdm(paths, "bgx", leave=False):
        for mode, way in modes.items():
            start = time.perf_counter()
            image = way.cut(path)
            results[mode].seconds.append(time.perf_counter() - start)
            results[mode].cutouts.append(image)
    return results


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
    # Its libraries may print messages before.
    seconds: dict[str, list[float]] = json.loads(
        ended.stdout[ended.stdout.rindex('{"(default)"') :]
    )
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


def measure_inside(alphas: Sequence[Map], truths: Sequence[Map]) -> dict[str, float]:
    """Transparent share of all true holes, and half-transparent share of all true insides.

    A hole is background that does not reach the picture's edge; the inside keeps EDGE pixels from
    what is not subject. What there is none of is left out.
    """
    open_area = holes = veiled = inside = 0
    for alpha, truth in zip(alphas, truths, strict=True):
        labels, _ = label_regions(truth < 0.5, diagonal=False)
        outside = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        hole = (labels > 0) & ~np.isin(labels, outside)
        solid = Image.fromarray((truth > 0.98).astype(np.uint8) * 255)
        deep = np.asarray(solid.filter(ImageFilter.MinFilter(2 * EDGE + 1))) > 0
        holes += np.count_nonzero(hole)
        open_area += np.count_nonzero(hole & (alpha < 0.5))
        inside += np.count_nonzero(deep)
        veiled += np.count_nonzero(deep & (alpha > VEIL[0]) & (alpha < VEIL[1]))
    return ({"holes": open_area / holes} if holes else {}) | (
        {"veil": veiled / inside} if inside else {}
    )


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
    composite = _lay(pixels[..., :3], pixels[..., 3] / np.float32(255), scene.other)
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
        means |= measure_inside(alphas, [case.truth for case in cases])
        summary[mode] = means | take_times(mode, results)
    return summary


def take_times(mode: str, results: dict[str, Result]) -> dict[str, float]:
    """Median seconds of a mode, and median share of rembg -a's where that ran too."""
    taken = results[mode].seconds
    times = {"seconds": statistics.median(taken)}
    if SLOWEST in results:
        slowest = results[SLOWEST].seconds
        times["of -a"] = statistics.median(a / b for a, b in zip(taken, slowest, strict=True))
    return times


def take_least(rounds: Sequence[dict[str, Result]]) -> dict[str, Result]:
    """The first round's results with each photo's least seconds of all."""
    return {
        mode: replace(
            result,
            seconds=[
                min(taken) for taken in zip(*(each[mode].seconds for each in rounds), strict=True)
            ],
        )
        for mode, result in rounds[0].items()
    }


def renew_times(record: dict[str, Any], name: str, results: dict[str, Result]) -> None:
    """Replace the times of one folder in a record. Raises SystemExit unless its modes are these."""
    known = record["summary"].get(name, {})
    if set(known) != set(results):
        raise SystemExit(
            f"{name}: the record has {', '.join(known) or 'no such folder'}; "
            f"timed were {', '.join(results)}; times can be renewed only for the same modes"
        )
    for mode in known:
        known[mode] |= take_times(mode, results)


def describe(title: str, summary: dict[str, dict[str, float]]) -> str:
    names = list(next(iter(summary.values())))
    lines = [f"{title:24}" + "".join(f"{name:>10}" for name in names)]
    for mode, row in summary.items():
        lines.append(f"{mode:24}" + "".join(f"{row[name]:10.4f}" for name in names))
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


@dataclass(frozen=True)
class Tools:
    """bgx and, where asked for, rembg with the same network."""

    modes: dict[str, Mode]
    model: str
    model_file: Path
    rembg: Path | None

    @classmethod
    def open(cls, asked: argparse.Namespace) -> Tools:
        settings = ModelSettings.from_environment()
        store = Store(replace(settings, folder=asked.bgx_home or settings.folder))
        file = store.resolve(str(asked.model_file or asked.model), store.registry())
        rembg = vs_rembg.rembg_python(asked.rembg_env) if asked.rembg_env else None
        return cls(open_modes(file, store), asked.model, file.path, rembg)

    def cut(self, paths: Sequence[Path]) -> dict[str, Result]:
        """All modes of both over pictures, by mode."""
        results = cut_with_bgx(paths, self.modes)
        if self.rembg is not None:
            with tempfile.TemporaryDirectory(prefix="bgx-quality-") as folder:
                results |= cut_with_rembg(
                    paths, self.rembg, self.model, self.model_file, Path(folder)
                )
        return results

    def versions(self) -> dict[str, dict[str, str]]:
        interpreters = {"bgx": Path(sys.executable)}
        if self.rembg is not None:
            interpreters["rembg"] = self.rembg
        return {
            tool: measure.versions(interpreter, ("rembg", *measure.PACKAGES))
            for tool, interpreter in interpreters.items()
        }


def measure_folder(
    folder: Path, tools: Tools, *, limit: int | None, pictures: Path | None
) -> tuple[int, dict[str, dict[str, float]]]:
    """How many photos a folder has, and the means over them by mode."""
    cases = read_set(folder, limit)
    results = tools.cut([case.path for case in cases])
    if pictures:
        write_pictures(pictures, cases, results)
    return len(cases), summarize(cases, results)


def cut_scenes(scenes: Sequence[Scene], tools: Tools) -> dict[str, Result]:
    """All modes over drawn photos."""
    with tempfile.TemporaryDirectory(prefix="bgx-scenes-") as folder:
        paths = [Path(folder) / f"{number}.png" for number in range(len(scenes))]
        for path, scene in zip(paths, scenes, strict=True):
            scene.photo.save(path, compress_level=1)
        return tools.cut(paths)


def measure_scenes(count: int, tools: Tools) -> tuple[int, dict[str, dict[str, float]]]:
    """How many photos were drawn, and the mean colour error by mode."""
    scenes = draw_scenes(count)
    return len(scenes), {
        mode: {"colour": statistics.mean(map(measure_colours, result.cutouts, scenes))}
        for mode, result in cut_scenes(scenes, tools).items()
    }


def measure_shapes(count: int, tools: Tools) -> tuple[int, dict[str, dict[str, float]]]:
    """How many shapes were drawn, and what became of their holes and insides, by mode."""
    shapes = draw_shapes(count)
    truths = [shape.alpha for shape in shapes]
    return len(shapes), {
        mode: measure_inside([alpha_of(cutout) for cutout in result.cutouts], truths)
        for mode, result in cut_scenes(shapes, tools).items()
    }


def measure_all(asked: argparse.Namespace, tools: Tools) -> dict[str, Any]:
    """The record of all folders and the scenes, printed on the way."""
    counts: dict[str, int] = {}
    summary: dict[str, Any] = {}

    def note(name: str, found: tuple[int, dict[str, dict[str, float]]]) -> None:
        counts[name], summary[name] = found
        print(describe(f"{name} ({counts[name]})", summary[name]), flush=True)

    for folder in asked.folders:
        found = measure_folder(folder, tools, limit=asked.n, pictures=asked.pictures)
        note(folder.name, found)
    if asked.scenes:
        note("scenes", measure_scenes(asked.scenes, tools))
        note("shapes", measure_shapes(2 * asked.scenes, tools))
    return measure.make_record(
        "quality",
        settings={
            "model": asked.model,
            "photos": counts,
            "modes": {mode: OPTIONS[mode] for mode in tools.modes},
        },
        versions=tools.versions(),
        measurements={},
        summary=summary,
    )


def time_again(asked: argparse.Namespace, tools: Tools) -> dict[str, Any]:
    """The record that --json has, with times of a few photos of each folder taken now."""
    record: dict[str, Any] = json.loads(asked.json.read_text(encoding="utf-8"))
    for folder in asked.folders:
        paths = [case.path for case in read_set(folder, asked.timing_photos)]
        renew_times(record, folder.name, take_least([tools.cut(paths) for _ in range(ROUNDS)]))
        print(describe(folder.name, record["summary"][folder.name]), flush=True)
    now = measure.make_record(
        "quality", settings={}, versions=tools.versions(), measurements={}, summary={}
    )
    origin = {name: now[name] for name in ("date", "commit", "machine", "versions")}
    return record | {"timing": {"photos": asked.timing_photos, "rounds": ROUNDS} | origin}


def main() -> None:
    asked = _parse()
    tools = Tools.open(asked)
    for mode in tools.modes:
        print(f"{mode}: {OPTIONS[mode]}")
    record = time_again(asked, tools) if asked.timing_photos else measure_all(asked, tools)
    print(measure.describe_origin(record | record.get("timing", {})))
    if asked.json:
        measure.write_record(asked.json, record)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", metavar="DIR")
    parser.add_argument("--model", default="u2netp", help="network of both (default: u2netp)")
    parser.add_argument("--model-file", type=Path, help="its file (default: bgx's own)")
    parser.add_argument(
        "--bgx-home", type=Path, help="folder with the 8-bit copy (default: bgx's own)"
    )
    parser.add_argument("--rembg-env", type=Path, help="virtual environment that has rembg")
    parser.add_argument("--scenes", type=int, default=6, help="drawn scenes (default: 6)")
    parser.add_argument("-n", type=int, help="at most this many photos of a folder")
    parser.add_argument("--pictures", type=Path, help="write crops at 400 %% into this folder")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    parser.add_argument(
        "--timing-photos", type=int, metavar="N", help="renew the times in --json, of N photos each"
    )
    asked = parser.parse_args()
    if asked.timing_photos and not (asked.json and asked.json.is_file()):
        parser.error("--timing-photos renews the times of a record: name it with --json")
    return asked


if __name__ == "__main__":
    main()

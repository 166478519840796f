"""Compares bgx with rembg: the same photos, the same network, the same machine, in one run.

    python benchmarks/vs_rembg.py --photos 12mp -n 24 --json results.json

Both run as programs, alternately, in several rounds: `rembg p -m u2netp` and `bgx batch --model
u2netp --no-refine`, which makes the same mattes. rembg has an environment of its own, which is
created on the first run. Before measuring, each cuts out one photo, so that one-time preparation is
not measured. Ratios are rembg's figure divided by bgx's of the same round, medians over rounds: 2
means that bgx takes half.

Both compute in float32. With `--precision int8`, bgx first makes its 8-bit copy of the network,
with drawn photos that are not among the measured ones, and compares it with float32 as `bgx models
optimize` does: a copy that does not pass ends the benchmark. rembg always uses float32, so the
difference of the mattes includes that of the 8 bits.
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
import venv
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs
from PIL import Image
from tqdm import tqdm

import measure
import photos
from bgx.model.opening import open_session
from bgx.model.store import Store
from bgx.settings import DeviceSettings, ModelSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from bgx.model.session import Session

MODEL = "u2netp"
REMBG_VERSION = "2.0.86"
REMBG_REQUIREMENT = f"rembg[cpu,cli]=={REMBG_VERSION}"
COLD_PHOTO = photos.SIZES["1600"]

CALIBRATION_SIZE = (800, 600)
"""Width and height, pixels: not smaller than the network's input."""

CALIBRATION_COUNT = 64
"""Number of photos to make the 8-bit copy with; as many others are used to check it."""

CALIBRATION_SEED = 100_000
"""Seed of the first of them, beyond the seeds of the photos that are measured."""


@dataclass(frozen=True)
class Tool:
    """One of the two programs, and its commands for the same work."""

    name: str
    python: Path
    environment: dict[str, str]
    one: Sequence[str]
    many: Sequence[str]
    output_option: Sequence[str] = ()

    def program(self) -> str:
        found = shutil.which(self.name, path=str(self.python.parent))
        if found is None:
            raise SystemExit(f"{self.name} is not installed beside {self.python}")
        return found

    def run(self, *words: str | Path) -> measure.Usage:
        return measure.run([self.program(), *words], self.environment).usage

    def help(self) -> measure.Usage:
        return self.run("--help")

    def cut_one(self, photo: Path, target: Path) -> measure.Usage:
        return self.run(*self.one, photo, target)

    def cut_folder(self, folder: Path, target: Path, *options: str) -> measure.Usage:
        return self.run(*self.many, *options, folder, *self.output_option, target)


def rembg_tool(python: Path, home: Path, model_file: Path) -> Tool:
    """rembg, finding the network in its flat folder, where it trusts the file's name."""
    home.mkdir()
    shutil.copy(model_file, home / f"{MODEL}.onnx")
    return Tool(
        "rembg",
        python,
        clean_environment() | {"U2NET_HOME": str(home), "MODEL_CHECKSUM_DISABLED": "1"},
        one=("i", "-m", MODEL),
        many=("p", "-m", MODEL),
    )


def bgx_tool(
    home: Path, model_file: Path, options: Sequence[str], *, precision: str = "fp32"
) -> Tool:
    """This interpreter's bgx with a home of its own and options that give rembg's mattes."""
    common = ("--model", MODEL, "--device", "cpu", "--precision", precision, "--no-refine")
    tool = Tool(
        "bgx",
        Path(sys.executable),
        clean_environment() | {"BGX_HOME": str(home)},
        one=("remove", *common, *options),
        many=("batch", *common, *options),
        output_option=("-o",),
    )
    tool.run("models", "add", MODEL, model_file)
    return tool


def open_network(home: Path, threads: int | None = None) -> Session:
    """The network of such a home in this process, in float32, as bgx runs it in a batch."""
    store = Store(ModelSettings(folder=home, offline=True))
    file = store.resolve(MODEL, store.registry())
    return open_session(file, DeviceSettings("cpu", threads=threads, precision="fp32"), store)


def make_int8(bgx: Tool, folder: Path, count: int = CALIBRATION_COUNT) -> dict[str, Any]:
    """Have bgx make its 8-bit copy of the network, on photos drawn into folder.

    Returns bgx's own record of the comparison with float32. Raises SystemExit with bgx's words
    where the copy does not pass.
    """
    print(f"making bgx's 8-bit copy of {MODEL}: some minutes", file=sys.stderr)
    # bgx makes the copy with every other photo and holds the rest back.
    photos.write(folder, CALIBRATION_SIZE, 2 * count, seed=CALIBRATION_SEED)
    optimize = (bgx.program(), "models", "optimize", MODEL, "--precision", "int8")
    try:
        made = measure.run(
            [*optimize, "--calibrate", folder, "-n", str(count), "--quiet"], bgx.environment
        )
    except measure.ChildError as error:
        raise SystemExit(f"there is no 8-bit copy to measure: {error}") from None
    path, _, passed = made.stdout.strip().rpartition("  ")
    print(f"8-bit copy: {passed}")
    measured: dict[str, Any] = json.loads(Path(path).with_suffix(".json").read_text())
    return measured


def clean_environment() -> dict[str, str]:
    """The environment without settings of either tool.

    Python may keep compiled modules: pip has compiled rembg's, but not those of a checkout of bgx.
    """
    ours = ("BGX_", "U2NET_", "REMBG_", "MODEL_CHECKSUM", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def rembg_python(folder: Path | None) -> Path:
    """Return the interpreter of rembg's environment; make the environment where there is none."""
    folder = folder or platformdirs.user_cache_path("bgx") / "benchmarks" / f"rembg-{REMBG_VERSION}"
    python = _python_of(folder)
    if not python.exists():
        print(f"making an environment with {REMBG_REQUIREMENT} in {folder}", file=sys.stderr)
        _make_environment(folder, REMBG_REQUIREMENT)
    found = measure.versions(python, ["rembg"]).get("rembg")
    if found != REMBG_VERSION:
        raise SystemExit(f"{folder} has rembg {found}, not {REMBG_VERSION}: remove that folder")
    return python


def _python_of(environment: Path) -> Path:
    windows = environment / "Scripts" / "python.exe"
    return windows if os.name == "nt" else environment / "bin" / "python"


def _make_environment(folder: Path, requirement: str) -> None:
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(_python_of(folder)), "-m", "pip", "--disable-pip-version-check"]
    try:
        subprocess.run([*pip, "install", "--quiet", requirement], check=True)
    except subprocess.CalledProcessError:
        shutil.rmtree(folder)
        raise SystemExit(f"{requirement} could not be installed") from None


def known_model_file() -> Path:
    """Where bgx has the network, by its own word."""
    asked = [sys.executable, "-m", "bgx", "models", "path", MODEL]
    answer = subprocess.run(asked, stdout=subprocess.PIPE, text=True)
    if answer.returncode:
        raise SystemExit(f"give the network's file: --model-file {MODEL}.onnx")
    return Path(answer.stdout.strip())


@dataclass(frozen=True)
class Work:
    """The folder of one comparison and the photos in it."""

    folder: Path
    photos: Path
    cold_photo: Path

    @classmethod
    def prepare(cls, folder: Path, size: tuple[int, int], count: int) -> Work:
        photos.write(folder / "photos", size, count)
        (cold_photo,) = photos.write(folder / "cold", COLD_PHOTO, 1)
        return cls(folder, folder / "photos", cold_photo)

    def cut_out_folder(self, tool: Tool) -> Path:
        return self.folder / f"{tool.name}-cut"

    def cut_all(self, tool: Tool, *options: str) -> measure.Usage:
        """Cut all photos into an empty folder. options: beside the tool's own.

        Raises SystemExit unless every one came out.
        """
        target = self.cut_out_folder(tool)
        if target.exists():
            shutil.rmtree(target)
        target.mkdir()
        usage = tool.cut_folder(self.photos, target, *options)
        wanted = {path.stem for path in self.photos.iterdir()}
        missing = wanted - {path.stem for path in target.glob("*.png")}
        if missing:
            raise SystemExit(f"{tool.name} left out {', '.join(sorted(missing))}")
        return usage

    def cut_cold(self, tool: Tool) -> measure.Usage:
        target = self.folder / f"{tool.name}.png"
        target.unlink(missing_ok=True)
        return tool.cut_one(self.cold_photo, target)


def compare(tools: Sequence[Tool], work: Work, rounds: int) -> dict[str, Any]:
    """Measure everything that both do, tool after tool, round after round.

    Returns by quantity: batch, cold and help with the usages of each round by tool, and
    matte_differences by photo.
    """
    for tool in tools:
        work.cut_cold(tool)
    operations: dict[str, Callable[[Tool], measure.Usage]] = {
        "batch": work.cut_all,
        "cold": work.cut_cold,
        "help": Tool.help,
    }
    measurements: dict[str, Any] = {}
    with tqdm(total=len(operations) * rounds * len(tools), leave=False) as progress:
        for what, operate in operations.items():
            measurements[what] = {tool.name: [] for tool in tools}
            for _ in range(rounds):
                for tool in tools:
                    progress.set_description(f"{what} {tool.name}")
                    measurements[what][tool.name].append(asdict(operate(tool)))
                    progress.update()
    folders = [work.cut_out_folder(tool) for tool in tools]
    measurements["matte_differences"] = matte_differences(*folders)
    return measurements


def matte_differences(one: Path, other: Path) -> list[float]:
    """Mean absolute difference, 0..1, of the alpha of equally named PNG files in two folders."""
    return [
        float(np.abs(_alpha(path) - _alpha(other / path.name)).mean() / 255)
        for path in sorted(one.glob("*.png"))
    ]


def _alpha(path: Path) -> NDArray[np.int16]:
    with Image.open(path) as picture:
        return np.asarray(picture.getchannel("A")).astype(np.int16)


def versions(tools: Iterable[Tool]) -> dict[str, dict[str, str]]:
    """By the tools' names, the versions of what each runs on."""
    packages = ("rembg", *measure.PACKAGES)
    return {tool.name: measure.versions(tool.python, packages) for tool in tools}


def installed_bytes(environment: Path) -> int:
    """Bytes of all files of an environment."""
    return sum(
        path.stat().st_size
        for path in environment.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def fresh_bgx_bytes(folder: Path) -> int:
    """Bytes of a new environment with bgx and its CPU runtime."""
    _make_environment(folder, f"{measure.REPOSITORY}[cpu]")
    return installed_bytes(folder)


def summarize(measurements: dict[str, Any], count: int) -> dict[str, dict[str, float]]:
    """Medians of both tools and of the ratios of their rounds, by quantity."""
    quantities = {
        "seconds per photo": ("batch", "seconds", 1 / count),
        "CPU seconds per photo": ("batch", "cpu_seconds", 1 / count),
        "peak memory, MB": ("batch", "peak_bytes", 1e-6),
        "one photo, cold, s": ("cold", "seconds", 1.0),
        "--help, s": ("help", "seconds", 1.0),
        "installed, MB": ("installed", "bytes", 1e-6),
    }
    summary = {}
    for name, (what, quantity, scale) in quantities.items():
        rows = measurements.get(what)
        if rows is None or rows["bgx"][0][quantity] is None:
            continue
        rembg, bgx = ([row[quantity] * scale for row in rows[tool]] for tool in ("rembg", "bgx"))
        summary[name] = {
            "rembg": statistics.median(rembg),
            "bgx": statistics.median(bgx),
            "ratio": statistics.median(a / b for a, b in zip(rembg, bgx, strict=True)),
        }
    differences = measurements["matte_differences"]
    summary["matte difference"] = {
        "mean": statistics.mean(differences),
        "worst photo": max(differences),
    }
    return summary


def describe(summary: dict[str, dict[str, float]]) -> str:
    lines = [f"{'':24}{'rembg':>10}{'bgx':>10}{'rembg/bgx':>12}"]
    for name, row in summary.items():
        if "ratio" in row:
            lines.append(f"{name:24}{row['rembg']:10.3f}{row['bgx']:10.3f}{row['ratio']:12.2f}")
        else:
            lines.append(f"{name}: {', '.join(f'{key} {row[key]:.4f}' for key in row)}")
    return "\n".join(lines)


def main() -> None:
    asked = _parse()
    size = photos.SIZES[asked.photos]
    model_file = asked.model_file or known_model_file()
    python = rembg_python(asked.rembg_env)
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as name:
        folder = Path(name)
        tools = (
            rembg_tool(python, folder / "rembg-home", model_file),
            bgx_tool(folder / "bgx-home", model_file, asked.bgx_options, precision=asked.precision),
        )
        copy = make_int8(tools[1], folder / "calibration") if asked.precision == "int8" else None
        work = Work.prepare(folder, size, asked.n)
        measurements = compare(tools, work, asked.repeats)
        if copy is not None:
            measurements["int8_copy"] = copy
        if asked.install_size:
            measurements["installed"] = {
                "rembg": [{"bytes": installed_bytes(python.parents[1])}],
                "bgx": [{"bytes": fresh_bgx_bytes(folder / "bgx-environment")}],
            }
    summary = summarize(measurements, asked.n)
    record = measure.make_record(
        "vs_rembg",
        settings={
            "model": MODEL,
            "precision": asked.precision,
            "photos": {"width": size[0], "height": size[1], "count": asked.n},
            "cold photo": {"width": COLD_PHOTO[0], "height": COLD_PHOTO[1]},
            "rounds": asked.repeats,
            "bgx options": asked.bgx_options,
        },
        versions=versions(tools),
        measurements=measurements,
        summary=summary,
    )
    print(
        f"{asked.n} photos of {size[0]} x {size[1]}, {asked.repeats} rounds, {MODEL}, "
        f"bgx in {asked.precision}"
    )
    print(describe(summary))
    measure.conclude(record, asked.json)


def make_parser(
    doc: str, *, size: str = "12mp", count: int = 24, repeats: int = 3
) -> argparse.ArgumentParser:
    """The options that the benchmarks with drawn photos have in common, with these defaults.

    doc: the benchmark's docstring.
    """
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("--photos", default=size, choices=photos.SIZES, help=f"default: {size}")
    parser.add_argument("-n", type=int, default=count, help=f"how many photos (default: {count})")
    parser.add_argument("--repeats", type=int, default=repeats, help=f"rounds (default: {repeats})")
    parser.add_argument("--model-file", type=Path, help=f"{MODEL}.onnx (default: bgx's own)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    return parser


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--precision", default="fp32", choices=("fp32", "int8"), help="of bgx (default: fp32)"
    )
    parser.add_argument("--rembg-env", type=Path, help="virtual environment that has rembg")
    parser.add_argument(
        "--install-size", action="store_true", help="also install bgx freshly and weigh it (slow)"
    )
    parser.add_argument("bgx_options", nargs="*", help="further options for bgx, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()

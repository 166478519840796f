"""bgx against rembg with any network's file, for example one of 1024 pixels.

    python benchmarks/network.py isnet.onnx --as isnet photos

Both cut out the same folder of photos as programs, in turn. rembg reads the file under the name of
one of its own networks of that family, without checking its hash. The file is not part of bgx.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import vs_rembg

if TYPE_CHECKING:
    from collections.abc import Sequence

REMBG_NAMES = {
    "u2net": "u2net",
    "isnet": "isnet-general-use",
    "birefnet": "birefnet-general",
}
"""The network of rembg that a file of a family is taken for."""


def make_tools(
    file: Path, family: str, rembg: Path, folder: Path, options: Sequence[str]
) -> tuple[vs_rembg.Tool, vs_rembg.Tool]:
    """rembg and bgx with this network, each with a home of its own below folder.

    rembg: interpreter of its environment.
    """
    name = REMBG_NAMES[family]
    home = folder / "rembg-home"
    home.mkdir()
    shutil.copy(file, home / f"{name}.onnx")
    clean = vs_rembg.clean_environment()
    theirs = vs_rembg.Tool(
        "rembg",
        rembg,
        clean | {"U2NET_HOME": str(home), "MODEL_CHECKSUM_DISABLED": "1"},
        one=("i", "-m", name),
        many=("p", "-m", name),
    )
    common = ("--model", str(file.resolve()), "--as", family, "--device", "cpu", "--no-refine")
    ours = vs_rembg.Tool(
        "bgx",
        Path(sys.executable),
        clean | {"BGX_HOME": str(folder / "bgx-home")},
        one=("remove", *common, *options),
        many=("batch", *common, *options),
        output_option=("-o",),
    )
    return theirs, ours


def main() -> None:
    asked = _parse()
    python = vs_rembg.rembg_python(asked.rembg_env)
    photos = sorted(path for path in asked.photos.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory(prefix="bgx-benchmark-") as name:
        folder = Path(name)
        tools = make_tools(asked.file, asked.family, python, folder, asked.bgx_options)
        work = vs_rembg.Work(folder, asked.photos, photos[0])
        # What each tool prepares only once; for bgx, this is measured too.
        first = {tool.name: asdict(work.cut_cold(tool)) for tool in tools}
        batch: dict[str, list[dict[str, Any]]] = {tool.name: [] for tool in tools}
        for _ in range(asked.repeats):
            for tool in tools:
                batch[tool.name].append(asdict(work.cut_all(tool)))
        folders = [work.cut_out_folder(tool) for tool in tools]
        measurements: dict[str, Any] = {
            "first": first,
            "batch": batch,
            "matte_differences": vs_rembg.matte_differences(*folders),
        }
    summary = vs_rembg.summarize(measurements, len(photos))
    record = measure.make_record(
        "network",
        settings={
            "file": asked.file.name,
            "bytes": asked.file.stat().st_size,
            "family": asked.family,
            "photos": len(photos),
            "rounds": asked.repeats,
            "bgx options": asked.bgx_options,
        },
        versions=vs_rembg.versions(tools),
        measurements=measurements,
        summary=summary,
    )
    print(f"{len(photos)} photos, {asked.repeats} rounds, {asked.file.name} as {asked.family}")
    for tool_name, usage in first.items():
        peak = (usage["peak_bytes"] or 0) / 1e6
        print(f"first photo, {tool_name}: {usage['seconds']:.1f} s, peak {peak:.0f} MB")
    print(vs_rembg.describe(summary))
    measure.conclude(record, asked.json)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path, help="the network, an ONNX file")
    parser.add_argument("photos", type=Path, help="a folder of photos")
    parser.add_argument("--as", dest="family", choices=sorted(REMBG_NAMES), required=True)
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--rembg-env", type=Path, help="rembg's environment (default: made)")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    parser.add_argument("bgx_options", nargs="*", help="further options for bgx, after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()

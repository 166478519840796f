"""Write the generated parts of README.md: ``python .ci/readme.py``.

A generated part stands between ``<!-- NAME -->`` and ``<!-- end -->``. tests/test_readme.py fails
when what stands there is not what this would write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from bgx.cli.main import bgx

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
RESULTS = REPOSITORY / "benchmarks" / "results"


def render(text: str) -> str:
    """README's text with every generated part written anew."""
    for name, generate in GENERATORS.items():
        before, opening, rest = text.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition("<!-- end -->")
        if not (opening and closing):
            raise SystemExit(f"README.md has no part <!-- {name} -->")
        text = f"{before}{opening}\n{generate()}\n\n{closing}{after}"
    return text


def show_help() -> str:
    result = CliRunner().invoke(bgx, ["batch", "--help"], prog_name="bgx", terminal_width=100)
    return f"```text\n{result.output.strip()}\n```"


def show_speed() -> str:
    """Tables of the records that benchmarks/vs_rembg.py wrote."""
    names = ("12mp", "1600", "1600-int8", "500")
    records = [_read_record(f"vs_rembg-{name}") for name in names]
    return "\n\n".join([*map(_show_comparison, records), _show_origin(records[0])])


def _show_comparison(record: dict[str, Any]) -> str:
    photos, summary = record["settings"]["photos"], record["summary"]
    title = f"{photos['count']} JPEG photos of {photos['width']} x {photos['height']} to PNG"
    if record["settings"]["precision"] == "int8":
        title += ", bgx with its 8-bit copy"
    lines = [f"| {title} | rembg | bgx | rembg / bgx |", "|---|---|---|---|"]
    for name, row in summary.items():
        if "ratio" in row:
            cells = (f"{row['rembg']:.3g}", f"{row['bgx']:.3g}", f"{row['ratio']:.1f}")
            lines.append(f"| {name} | {' | '.join(cells)} |")
    difference = summary["matte difference"]
    lines.append(
        f"| mean difference of the mattes, 0 to 1 | | {difference['mean']:.4f} "
        f"(worst photo {difference['worst photo']:.4f}) | |"
    )
    return "\n".join(lines)


def show_edge() -> str:
    """Tables of the records of the built-in network."""
    record, rival = _read_record("edge"), _read_record("vs_rembg-12mp-lite")
    lines = ["| JPEG photos | photos per second | peak memory, MB |", "|---|---|---|"]
    for name, row in record["summary"].items():
        width, height = record["settings"]["photos"]["sizes"][name]
        cells = f"{row['photos per second']:.1f} | {row['peak memory, MB']:.0f}"
        lines.append(f"| {width} x {height} | {cells} |")
    ratio = rival["summary"]["seconds per photo"]["ratio"]
    cores = rival["machine"]["usable_cores"]
    comparison = (
        f"On {cores} cores lite takes a folder of 12-megapixel photos {ratio:.1f} times as fast as "
        "`rembg p -m u2netp` (`benchmarks/vs_rembg.py --photos 12mp -- --model lite`)."
    )
    return "\n".join([*lines, "", comparison, "", _show_origin(record)])


QUANTITIES = {
    "edge": ("edge error", ".3f"),
    "gradient": ("gradient error", ".4f"),
    "SAD": ("SAD / 1000", ".1f"),
    "MSE": ("MSE", ".4f"),
    "MAE": ("MAE", ".4f"),
    "max F": ("max-F", ".3f"),
    "S": ("S-measure", ".3f"),
    "colour": ("colour error, 0 to 255", ".1f"),
    "seconds": ("seconds", ".2f"),
    "of -a": ("of `rembg -a`'s time", ".0%"),
}
"""Headings and formats of what the quality record calls its figures."""

# By the first one, which only this kind of set has.
SHOWN = (
    ("edge", "gradient", "SAD", "MSE", "seconds", "of -a"),
    ("MAE", "max F", "S", "seconds", "of -a"),
    ("colour",),
)


def show_quality() -> str:
    """A table for each set of the record that benchmarks/quality.py wrote."""
    record = _read_record("quality")
    counts = record["settings"]["photos"]
    tables = [
        _show_set(f"{name}, {counts[name]} photos", rows)
        for name, rows in record["summary"].items()
    ]
    timing = record.get("timing")
    if timing is None:
        return "\n\n".join([*tables, _show_origin(record)])
    renewed = (
        f" Seconds are of {timing['photos']} photos of each folder, the least of "
        f"{timing['rounds']}; all other figures are of commit {_shorten(record['commit'])}."
    )
    return "\n\n".join([*tables, _show_origin(record | timing) + renewed])


def _show_set(title: str, rows: dict[str, dict[str, float]]) -> str:
    known = next(iter(rows.values()))
    names = [name for name in next(shown for shown in SHOWN if shown[0] in known) if name in known]
    headings = [QUANTITIES[name][0] for name in names]
    lines = [f"| {title} | {' | '.join(headings)} |", "|---" * (len(names) + 1) + "|"]
    for mode, row in rows.items():
        cells = [format(row[name], QUANTITIES[name][1]) for name in names]
        lines.append(f"| {mode} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _read_record(name: str) -> dict[str, Any]:
    """A benchmark's record. Raises SystemExit where it is not there."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        script = name.partition("-")[0]
        raise SystemExit(
            f"benchmarks/results/{path.name} is missing, and with it a table of README.md; "
            f"write it with: python benchmarks/{script}.py --json benchmarks/results/{path.name} "
            "(--help lists what else it needs)"
        )
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _show_origin(record: dict[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    packages = ", ".join(f"{name} {version}" for name, version in versions["bgx"].items())
    rembg = versions.get("rembg", {})
    rival = f"; rembg {rembg['rembg']} on onnxruntime {rembg['onnxruntime']}" if rembg else ""
    return (
        f"Measured on {machine['usable_cores']} cores of {machine['cpu']} "
        f"({', '.join(machine['instructions'])}) with {packages}{rival}; commit "
        f"{_shorten(record['commit'])}, by `python benchmarks/{record['benchmark']}.py`. "
        "Seconds differ from machine to machine, ratios much less."
    )


def _shorten(commit: str) -> str:
    """With its + where the tree was not clean."""
    return commit[:7] + commit[40:]


GENERATORS: dict[str, Callable[[], str]] = {
    "help of bgx batch": show_help,
    "speed": show_speed,
    "quality": show_quality,
    "edge": show_edge,
}


if __name__ == "__main__":
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")

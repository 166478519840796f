"""Write the generated parts of README.md and docs/: ``python .ci/docs.py``.

A generated part stands between ``<!-- NAME -->`` and ``<!-- end -->``; GENERATORS lists the names.
tests/test_docs.py fails if a page does not hold what this would write.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner

from bgx.cli.main import bgx

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parents[1]
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
CARD = REPOSITORY / "src" / "bgx" / "weights" / "lite.md"
RESULTS = REPOSITORY / "benchmarks" / "results"


_PART = re.compile(
    r"^<!-- (?!end )(.+?) -->\n(?:(?!^<!--).)*^<!-- end -->$", re.DOTALL | re.MULTILINE
)


def render(text: str) -> str:
    """A page's text with every generated part written anew.

    Raises SystemExit for a part of an unknown name and for one that does not end.
    """
    if 2 * len(_PART.findall(text)) != len(re.findall("^<!--", text, re.MULTILINE)):
        raise SystemExit("every <!-- NAME --> needs one <!-- end -->")

    def write(part: re.Match[str]) -> str:
        name = part[1]
        if name not in GENERATORS:
            raise SystemExit(f"<!-- {name} -->: unknown; use one of {', '.join(GENERATORS)}")
        return f"<!-- {name} -->\n\n{GENERATORS[name]()}\n\n<!-- end -->"

    return _PART.sub(write, text)


def show_help(command: str) -> str:
    """What ``bgx COMMAND --help`` prints."""
    result = CliRunner().invoke(bgx, [command, "--help"], prog_name="bgx", terminal_width=100)
    return f"```text\n{result.output.strip()}\n```"


SPEED = ("12mp", "12mp-refine", "1600", "1600-int8", "500")
"""The records of benchmarks/vs_rembg.py that the tables of speed show, in this order."""


def show_speed_summary() -> str:
    """One row for each record of speed."""
    records = [_read_record(f"vs_rembg-{name}") for name in SPEED]
    lines = [
        "| JPEG to PNG, u2netp | rembg, s per photo | bgx, s per photo | rembg / bgx |",
        "|---|---|---|---|",
    ]
    for record in records:
        row = record["summary"]["seconds per photo"]
        cells = (f"{row['rembg']:.3g}", f"{row['bgx']:.3g}", f"{row['ratio']:.1f}")
        lines.append(f"| {_describe_photos(record)} | {' | '.join(cells)} |")
    machine = records[0]["machine"]
    origin = f"Measured on {machine['usable_cores']} cores of {machine['cpu']}."
    return "\n".join([*lines, "", origin])


def show_speed() -> str:
    """A table for each record of speed."""
    records = [_read_record(f"vs_rembg-{name}") for name in SPEED]
    tables = [_show_comparison(record, _describe_photos(record)) for record in records]
    return "\n\n".join([*tables, _show_origin(records[0])])


def show_network_speed() -> str:
    """The table of a network of 1024 pixels."""
    record = _read_record("network-isnet")
    title = f"{record['settings']['photos']} photos of 1600 x 1200, ISNet"
    return "\n\n".join([_show_comparison(record, title), _show_origin(record)])


def _describe_photos(record: dict[str, Any]) -> str:
    """Number and size of a record's photos, and what bgx was asked to do otherwise than usual."""
    settings = record["settings"]
    photos = settings["photos"]
    text = f"{photos['count']} photos of {photos['width']} x {photos['height']}"
    if settings["bgx options"]:
        text += f", bgx with `{' '.join(settings['bgx options'])}`"
    if settings["precision"] == "int8":
        text += ", bgx with its 8-bit copy"
    return text


def _show_comparison(record: dict[str, Any], photos: str) -> str:
    """Title, and a row for each figure. photos: what was cut out, and how."""
    summary = record["summary"]
    lines = [f"| {photos}, JPEG to PNG | rembg | bgx | rembg / bgx |", "|---|---|---|---|"]
    for name, row in summary.items():
        if "ratio" in row:
            figures = (row["rembg"], row["bgx"])
            cells = [f"{value:.0f}" if value >= 1000 else f"{value:.3g}" for value in figures]
            lines.append(f"| {name} | {' | '.join(cells)} | {row['ratio']:.1f} |")
    difference = summary["matte difference"]
    lines.append(
        f"| mean difference of the mattes, 0 to 1 | | {difference['mean']:.4f} "
        f"(worst photo {difference['worst photo']:.4f}) | |"
    )
    return "\n".join(lines)


SERVERS = {
    "rembg": "`rembg s`",
    "bgx": "bgx",
    "bgx, 8 bits": "bgx `--precision int8`",
    "bgx, refined": "bgx, edges refined",
}
"""How the table calls the servers of the record."""


def show_serve_speed() -> str:
    """A row for each server and number of clients."""
    record = _read_record("serve")
    sent = record["settings"]["photos"]
    lines = [
        f"{sent['count']} JPEG photos of {sent['width']} x {sent['height']} with u2netp:",
        "",
        "| at once | server | photos per second | p50, s | p95, s | memory, MB | times rembg |",
        "|---|---|---|---|---|---|---|",
    ]
    for clients, rows in record["summary"].items():
        for name, row in rows.items():
            shown = SERVERS[name]
            ratio = f"{row['times rembg']:.1f}" if "times rembg" in row else ""
            cells = (
                *(clients.removesuffix(" at once"), shown, f"{row['photos per second']:.2f}"),
                *(f"{row['p50, s']:.2f}", f"{row['p95, s']:.2f}"),
                *(f"{row['peak memory, MB']:,.0f}", ratio),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _show_origin(record)])


def show_lite_speed() -> str:
    """Speed and memory of the built-in network, and how it compares with rembg."""
    record, rival = _read_record("edge"), _read_record("vs_rembg-12mp-lite")
    lines = ["| JPEG photos | photos per second | peak memory, MB |", "|---|---|---|"]
    for name, row in record["summary"].items():
        width, height = record["settings"]["photos"]["sizes"][name]
        cells = f"{row['photos per second']:.1f} | {row['peak memory, MB']:.0f}"
        lines.append(f"| {width} x {height} | {cells} |")
    ratio = rival["summary"]["seconds per photo"]["ratio"]
    cores = rival["machine"]["usable_cores"]
    comparison = (
        f"On {cores} cores, lite takes a folder of 12-megapixel photos {ratio:.1f} times as fast "
        "as `rembg p -m u2netp`. Part of that is a smaller network with less accurate masks: see "
        "the table above. (`benchmarks/vs_rembg.py --photos 12mp -- --model lite`)"
    )
    return "\n".join([*lines, "", comparison, "", _show_origin(record)])


def show_lite_accuracy() -> str:
    """The table of accuracy of the built-in network's model card."""
    text = CARD.read_text(encoding="utf-8")
    return text[text.index("| network | max-F") :].partition("\n\n")[0]


QUANTITIES = {
    "edge": ("edge error", ".3f"),
    "gradient": ("gradient error", ".4f"),
    "SAD": ("SAD / 1000", ".1f"),
    "MSE": ("MSE", ".4f"),
    "MAE": ("MAE", ".4f"),
    "max F": ("max-F", ".3f"),
    "S": ("S-measure", ".3f"),
    "colour": ("colour error, 0 to 255", ".1f"),
    "holes": ("holes left open", ".1%"),
    "veil": ("half-transparent inside", ".1%"),
    "seconds": ("seconds", ".2f"),
    "of -a": ("of `rembg -a`'s time", ".0%"),
}
"""Headings and formats of what the quality record calls its figures."""

SETS = {
    "matting_dev": "photos of alphamatting.com with true alpha",
    "salient_dev": "photos of PASCAL-S with masks",
    "scenes": "drawn scenes of known colours",
    "shapes": "drawn shapes with holes",
}
"""What the quality record's sets are."""

SHOWN = {
    "matting_dev": ("edge", "gradient", "SAD", "MSE", "veil", "seconds", "of -a"),
    "salient_dev": ("MAE", "max F", "S", "veil", "seconds", "of -a"),
    "scenes": ("colour",),
    "shapes": ("holes", "veil"),
}
"""The figures of each set that its table shows."""

SUMMARY = (("salient_dev", "MAE"), ("matting_dev", "edge"), ("scenes", "colour"))
"""The figures that README shows."""


def show_quality_summary() -> str:
    """One row for each mode."""
    record = _read_record("quality")
    counts, sets = record["settings"]["photos"], record["summary"]
    headings = [f"{QUANTITIES[name][0]}, {counts[kind]} {SETS[kind]}" for kind, name in SUMMARY]
    lines = [f"| u2netp | {' | '.join(headings)} |", "|---|---|---|---|"]
    for mode in sets[SUMMARY[0][0]]:
        cells = [format(sets[kind][mode][name], QUANTITIES[name][1]) for kind, name in SUMMARY]
        lines.append(f"| {_spell_mode(record, mode)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def show_quality() -> str:
    """A table for each set of the record that benchmarks/quality.py wrote."""
    record = _read_record("quality")
    counts = record["settings"]["photos"]
    tables = [
        _show_set(name, counts[name], {_spell_mode(record, mode): rows[mode] for mode in rows})
        for name, rows in record["summary"].items()
    ]
    timing = record.get("timing")
    notes = [_show_origin(record | (timing or {}))]
    if timing:
        notes.append(
            f"Seconds are of {timing['photos']} photos of each folder, the least of "
            f"{timing['rounds']}; all other figures are of commit {_shorten(record['commit'])}."
        )
    if renewed := record.get("renewed"):
        modes = " and ".join(f"`{_spell_mode(record, mode)}`" for mode in renewed["modes"])
        notes.append(f"{modes}: all but the seconds are of commit {_shorten(renewed['commit'])}.")
    return "\n\n".join([*tables, " ".join(notes)])


def _spell_mode(record: dict[str, Any], mode: str) -> str:
    """A mode of bgx by its options, without those that are the default in every version."""
    options = record["settings"]["modes"].get(mode)
    if options is None:
        return mode
    return f"bgx {options}".replace(" --matte raw", "").replace(" --precision fp32", "")


def _show_set(kind: str, count: int, rows: dict[str, dict[str, float]]) -> str:
    known = next(iter(rows.values()))
    names = [name for name in SHOWN[kind] if name in known]
    title = f"{count} {SETS[kind]}"
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
            f"benchmarks/results/{path.name} is missing, and with it a table of the documentation; "
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
    "help of bgx batch": lambda: show_help("batch"),
    "help of bgx serve": lambda: show_help("serve"),
    "help of bgx train": lambda: show_help("train"),
    "help of bgx worker": lambda: show_help("worker"),
    "speed summary": show_speed_summary,
    "speed": show_speed,
    "speed of a large network": show_network_speed,
    "speed of bgx serve": show_serve_speed,
    "quality summary": show_quality_summary,
    "quality": show_quality,
    "accuracy of lite": show_lite_accuracy,
    "speed of lite": show_lite_speed,
}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")

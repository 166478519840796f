"""``bgx models``: lists, downloads, checks, adds and optimizes networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bgx.cli.console import Console, print_result, set_up_logging
from bgx.cli.request import as_family, offline_option, option, quiet_option
from bgx.errors import BadModelError, MissingModelError
from bgx.settings import DeviceSettings
from bgx.storage import to_path

if TYPE_CHECKING:
    from bgx.model.registry import ModelEntry
    from bgx.model.store import Store
    from bgx.settings import Precision


@click.group()
def models() -> None:
    """List, download, check and add networks."""


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """Show every network of the registry and whether its file is on this computer."""
    store = _open_store()
    rows = [_describe(store, entry) for entry in store.registry().values()]
    if as_json:
        print_result(json.dumps(rows, indent=2))
        return
    header = ("NAME", "SIZE", "INPUT", "LICENCE", "HERE", "COPIES", "TRIED", "QUALITY", "COST")
    table = [header, *(_format(row) for row in rows)]
    widths = [max(len(line[column]) for line in table) for column in range(len(header))]
    for line in table:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print_result("  ".join(cells).rstrip())


@models.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@offline_option
@quiet_option
def download(names: tuple[str, ...], offline: bool, quiet: bool) -> None:
    """Download networks. One that is on this computer and undamaged is not downloaded again."""
    from bgx.model.registry import find_entry

    store = _open_store(offline=offline)
    registry = store.registry()
    for entry in [find_entry(registry, name) for name in names]:
        file = store.download(entry, progress=not quiet)
        print_result(str(file.path))


@models.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the hash of networks again; without NAME, of all that are on this computer."""
    from bgx.model.registry import find_entry

    store = _open_store()
    registry = store.registry()
    entries = [find_entry(registry, name) for name in names] or list(registry.values())
    bad: list[BadModelError] = []
    for entry in entries:
        try:
            file = store.verify(entry)
        except BadModelError as error:
            bad.append(error)
            print_result(f"{entry.name}  BAD")
        except MissingModelError:
            if names:
                raise
        else:
            print_result(f"{entry.name}  ok  {file.digest}")
    if bad:
        raise bad[0]


@models.command()
@click.argument("name")
@click.argument("file", type=to_path)
@as_family
def add(name: str, file: Path, family: str | None) -> None:
    """Copy the local FILE into bgx's folder, under NAME.

    NAME is one of the registry or a new one. From then on the file is checked against its own
    hash, not against the published one.
    """
    from bgx.model.trial import check_network

    store = _open_store(family=family)
    added = store.add(name, file, store.registry(), check=check_network)
    print_result(f"{added.path}  {added.digest}")


@models.command()
@click.argument("name")
def path(name: str) -> None:
    """Print the path of the network's file."""
    from bgx.model.registry import find_entry

    store = _open_store()
    entry = find_entry(store.registry(), name)
    found = store.locate(entry)
    if found is None:
        raise MissingModelError(f"{name}: not on this machine; run: bgx models download {name}")
    print_result(str(found.path))


@models.command()
@click.argument("name")
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16"]),
    default="int8",
    show_default=True,
    help="int8 makes a copy for the CPU, fp16 for a GPU.",
)
@option(
    "--device",
    "-d",
    default="auto",
    metavar="DEVICE",
    help="GPU for which an fp16 copy is made and checked: auto, cuda[:N], directml[:N], ...",
)
@click.option(
    "--calibrate",
    "folder",
    metavar="FOLDER",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Photos like those to be cut out. Half of them are used to check the copy.",
)
@option(
    "--count",
    "-n",
    type=click.IntRange(4),
    default=64,
    help="Number of photos that the copy is made with.",
)
@as_family
@offline_option
@quiet_option
def optimize(
    name: str,
    precision: Precision,
    device: str,
    folder: Path,
    count: int,
    family: str | None,
    offline: bool,
    quiet: bool,
) -> None:
    """Make a faster copy of a network: in 8 bits for the CPU, or in half precision for a GPU.

    An 8-bit copy is about twice as fast on CPUs that have instructions for it. The copy is compared
    with the original in float32 and kept only if it is faster on this device, its mattes differ by
    at most 0.005 on average, and its masks have an IoU of at least 0.985. From then on
    `--precision auto` uses it on this device.
    """
    from bgx.image.read import prepare_process
    from bgx.run.optimize import optimize as make_copy

    settings = DeviceSettings(device, precision=precision)
    prepare_process()
    store = _open_store(offline=offline, family=family)
    console = Console(quiet=quiet)
    file = store.resolve(name, store.registry(), progress=not quiet)
    path, measured = make_copy(file, store, folder, count, settings, progress=console.print_note)
    print_result(f"{path}  {measured}")


@models.command("remove")
@click.argument("name")
def remove_model(name: str) -> None:
    """Delete the network's file, and copies made of it, from bgx's folder."""
    print_result(str(_open_store().remove(name)))


def _open_store(*, offline: bool = False, family: str | None = None) -> Store:
    from bgx.model.store import Store
    from bgx.settings import ModelSettings

    set_up_logging(Console(quiet=False), 0)
    return Store(ModelSettings.from_environment(offline=offline, family=family))


def _describe(store: Store, entry: ModelEntry) -> dict[str, Any]:
    from bgx.model.optimize.copies import list_copies

    state: str | None = None
    found = None
    try:
        found = store.locate(entry)
    except BadModelError:
        state = "damaged"
    else:
        state = found.origin if found else None
    return {
        "name": entry.name,
        "bytes": entry.bytes,
        "input": entry.input if entry.free else list(entry.largest),
        "licence": entry.licence,
        "present": found is not None,
        "state": state,
        "path": str(found.path) if found else None,
        "copies": list_copies(found, store) if found else [],
        "tried": entry.tried,
        "family": entry.family or None,
        "quality": entry.quality or None,
        "cost": entry.cost or None,
        "about": entry.about,
    }


def _format(row: dict[str, Any]) -> tuple[str, ...]:
    size = row["input"]
    return (
        row["name"],
        f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else "?",
        size if isinstance(size, str) else "{}x{}".format(*size),
        row["licence"],
        row["state"] or "no",
        ", ".join(row["copies"]) or "no",
        "yes" if row["tried"] else "no",
        row["quality"] or "?",
        row["cost"] or "?",
    )

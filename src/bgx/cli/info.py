"""``bgx info``: what is installed on this machine, and which devices work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bgx import __version__
from bgx.cli.console import print_result
from bgx.errors import ExitCode
from bgx.install import explain_other_bgx

if TYPE_CHECKING:
    from bgx.model.store import Store


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> ExitCode:
    """Show versions, devices that work, cores, folders and networks."""
    facts = _gather()
    if as_json:
        print_result(json.dumps(facts, indent=2))
    else:
        _print(facts)
    return ExitCode.OK if facts["runtime"]["auto"] else ExitCode.DEVICE


def _gather() -> dict[str, Any]:
    import platform
    from importlib import metadata

    from bgx.machine import count_cores
    from bgx.model.inspection import inspect_runtime
    from bgx.model.registry import FALLBACKS
    from bgx.model.store import Store
    from bgx.settings import DEFAULT_MODEL, ModelSettings

    store = Store(ModelSettings.from_environment())
    present = [name for name, entry in store.registry().items() if store.present(entry)]
    runtime = inspect_runtime()
    return {
        "version": __version__,
        "trouble": explain_other_bgx(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: metadata.version(name) for name in ("numpy", "pillow", "onnx")},
        "runtime": {
            "flavours": dict(runtime.flavours),
            "version": runtime.version,
            "listed": list(runtime.listed),
            "loads": list(runtime.loads),
            "fails": dict(runtime.fails),
            "auto": runtime.auto,
            "why": runtime.why,
            "trouble": runtime.trouble,
        },
        "cores": count_cores(),
        "folder": str(store.folder),
        "models": present,
        "default": next((name for name in (DEFAULT_MODEL, *FALLBACKS) if name in present), None),
        "copies": _list_copies(store),
    }


def _list_copies(store: Store) -> dict[str, list[str]]:
    """The faster copies of each network that passed on this machine, by the network's name."""
    from bgx.model.optimize.copies import list_copies

    present = [entry for entry in store.registry().values() if store.present(entry)]
    files = {entry.name: store.locate(entry) for entry in present}
    copies = {name: list_copies(file, store) for name, file in files.items() if file}
    return {name: labels for name, labels in copies.items() if labels}


def _print(facts: dict[str, Any]) -> None:
    runtime = facts["runtime"]
    copies = ", ".join(f"{n} ({', '.join(labels)})" for n, labels in facts["copies"].items())
    rows = [
        ("bgx", facts["version"]),
        ("python", f"{facts['python']} on {facts['platform']}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in facts["packages"].items())),
        ("runtime", ", ".join(f"{n} {v}" for n, v in runtime["flavours"].items()) or "none"),
        ("listed", ", ".join(runtime["listed"]) or "none"),
        ("loads", ", ".join(runtime["loads"]) or "none"),
        *((f"  {kind}", reason) for kind, reason in runtime["fails"].items()),
        ("auto takes", f"{runtime['auto'] or 'nothing'} ({runtime['why']})"),
        ("cores", str(facts["cores"])),
        ("folder", facts["folder"]),
        ("default", facts["default"] or "not on this machine; downloaded when it is first used"),
        ("networks", ", ".join(facts["models"]) or "none on this machine; see: bgx models list"),
        ("copies", copies or "none; see: bgx models optimize --help"),
    ]
    rows += [("trouble", text) for text in (facts["trouble"], runtime["trouble"]) if text]
    for name, value in rows:
        print_result(f"{name:<11}{value}")

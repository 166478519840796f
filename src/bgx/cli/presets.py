"""``bgx presets``: shows the presets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from bgx.cli.console import print_result

if TYPE_CHECKING:
    from bgx.presets import Preset


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def presets(as_json: bool) -> None:
    """Show the presets, the rule each stands for, and its options.

    Your own go into a file of the same form that BGX_PRESETS names.
    """
    from bgx.presets import load_presets

    found = load_presets().values()
    if as_json:
        rows = [
            {
                "name": preset.name,
                "rule": preset.rule,
                "written": preset.written.isoformat(),
                "options": {_spell(name): value for name, value in preset.options.items()},
            }
            for preset in found
        ]
        print_result(json.dumps(rows, indent=2))
        return
    for preset in found:
        print_result(f"{preset.name}: {preset.rule} ({preset.written})")
        print_result(f"    {_format_options(preset)}")


def _format_options(preset: Preset) -> str:
    """The options as they would be typed."""
    words = []
    for name, value in preset.options.items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{_spell(name)}")
        else:
            words.append(f"--{_spell(name)} {value}")
    return " ".join(words)


def _spell(name: str) -> str:
    return name.replace("_", "-")

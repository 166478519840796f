"""Write the generated parts of README.md: ``python .ci/readme.py``.

A generated part stands between ``<!-- NAME -->`` and ``<!-- end -->``. tests/test_readme.py fails
when what stands there is not what this would write.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from bgx.cli.main import bgx

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"


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


GENERATORS: dict[str, Callable[[], str]] = {"help of bgx batch": show_help}


if __name__ == "__main__":
    README.write_text(render(README.read_text(encoding="utf-8")), encoding="utf-8")

"""What README says is what happens: every block of it is run or compared."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from bgx.errors import ExitCode
from bgx.model.registry import load_registry
from bgx.presets import load_presets
from support.networks import tiny_network
from support.shell import bgx, read_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int

    def __str__(self) -> str:
        return f"line {self.line}"


def _blocks() -> Iterator[Block]:
    for match in re.finditer(r"^```([a-z ]+)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        yield Block(match[1], match[2], README[: match.start()].count("\n") + 1)


BLOCKS = list(_blocks())


def _of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the examples name, and networks of a few milliseconds in place of the
    published ones."""
    for name in ("in.jpg", "photos/shoe.jpg", "photos/sub/hat.jpg", "photos/sub/bag one.png"):
        photo = tmp_path / name
        photo.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", (160, 120), "black")
        image.paste("orange", (40, 30, 120, 100))
        image.save(photo)
    network = tiny_network(tmp_path / "tiny.onnx")
    for name in ("u2net", "u2netp"):
        assert bgx("models", "add", name, network).code == ExitCode.OK
    network.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_no_block_is_left_out() -> None:
    known = {"sh", "sh setup", "json", "toml", "python", "text"}
    assert {block.language for block in BLOCKS} <= known


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="needs bash")
@pytest.mark.parametrize("block", _of("sh"), ids=str)
def test_shell_examples_run(block: Block, sandbox: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # Without `-e`, so that one broken line shows beside the others' output; then every line alone.
    for line in block.text.splitlines():
        result = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=sandbox,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
    assert not list(sandbox.rglob("*.bgx-tmp"))


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="needs bash")
def test_the_example_that_looks_for_failures_tells_whether_there_are_any(sandbox: Path) -> None:
    [line] = (line for block in _of("sh") for line in block.text.splitlines() if "all good" in line)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def said() -> str:
        asked = ["bash", "-c", line]
        return subprocess.check_output(asked, text=True, env=os.environ | {"PATH": path})

    assert said() == "all good\n"
    (sandbox / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    assert "torn.jpg" in said()


@pytest.mark.parametrize("block", _of("python"), ids=str)
def test_python_examples_run(
    block: Block, sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exec(compile(block.text, str(block), "exec"), {})
    with Image.open(sandbox / "out.webp") as cutout:
        assert cutout.mode == "RGBA"
    assert (sandbox / "cut" / "sub" / "hat.png").is_file()
    assert "missing.jpg" in capsys.readouterr().out


def test_report_example_has_the_fields_of_a_report(sandbox: Path) -> None:
    (sandbox / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    (sandbox / "cut").mkdir()
    shutil.copy(sandbox / "in.jpg", sandbox / "cut" / "shoe.png")
    report = sandbox / "report.jsonl"
    result = bgx("batch", "photos", "-o", "cut", "--report", report)
    assert result.code == ExitCode.PICTURES
    real = read_rows(report)
    [block] = _of("json")
    shown = [json.loads(line) for line in block.text.splitlines()]
    assert _shapes(shown) == _shapes(real)


def _shapes(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The fields of each kind of row."""
    return {str(row.get("status")): sorted(row) for row in rows}


def test_preset_example_is_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block, _ = _of("toml")
    (tmp_path / "presets.toml").write_text(block.text, encoding="utf-8")
    monkeypatch.setenv("BGX_PRESETS", str(tmp_path / "presets.toml"))
    assert "our-shop" in load_presets()


def test_registry_example_is_a_registry(tmp_path: Path) -> None:
    _, block = _of("toml")
    own = tmp_path / "own.toml"
    own.write_text(block.text, encoding="utf-8")
    [name] = tomllib.loads(block.text)
    assert load_registry(own)[name].licence == "Apache-2.0"


def test_ci_runs_the_test_command() -> None:
    test_command = next(block.text for block in _of("sh setup") if "pytest" in block.text)
    assert test_command in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


@pytest.fixture
def generator() -> ModuleType:
    """.ci/readme.py."""
    path = REPOSITORY / ".ci" / "readme.py"
    spec = importlib.util.spec_from_file_location("readme", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_parts_are_current(generator: ModuleType) -> None:
    assert generator.render(README) == README, "run: python .ci/readme.py"


@pytest.mark.parametrize("name", ["vs_rembg-12mp", "quality"])
def test_a_missing_record_is_named_with_what_writes_it(
    name: str, generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(generator.RESULTS, tmp_path, dirs_exist_ok=True)
    (tmp_path / f"{name}.json").unlink()
    monkeypatch.setattr(generator, "RESULTS", tmp_path)

    script = name.partition("-")[0]
    with pytest.raises(SystemExit, match=rf"{name}\.json is missing.*benchmarks/{script}\.py"):
        generator.render(README)


def test_quality_table_says_where_renewed_times_are_from(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((generator.RESULTS / "quality.json").read_text(encoding="utf-8"))
    record["timing"] = {name: record[name] for name in ("machine", "versions")}
    record["timing"] |= {"photos": 3, "rounds": 2, "commit": "0123456789" * 4}
    record["commit"] = "abcdef0123" * 4 + "+"
    (tmp_path / "quality.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(generator, "RESULTS", tmp_path)

    text = generator.show_quality()

    assert "commit 0123456," in text
    assert "Seconds are of 3 photos of each folder, the least of 2" in text
    assert "all other figures are of commit abcdef0+." in text


def test_exit_codes_are_all_there() -> None:
    table = README.partition("## Exit codes")[2].partition("\n## ")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert listed == {code.value for code in ExitCode}


def test_every_command_is_documented() -> None:
    from bgx.cli import main

    for name in main.Commands.names:
        assert f"bgx {name}" in README

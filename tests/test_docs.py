"""What README and docs/ say is what happens: every block of them is run or compared."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from bgx.errors import ExitCode
from bgx.model.registry import load_registry
from bgx.presets import load_presets
from bgx.storage import open_file, open_folder
from support.networks import tiny_network
from support.services import ObjectStore, Redis
from support.serving import serving
from support.shell import bgx, read_rows
from support.watching import watching

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from support.serving import Server

REPOSITORY = Path(__file__).parents[1]
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
}
README = PAGES["README.md"]


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def _blocks() -> Iterator[Block]:
    for page, text in PAGES.items():
        for match in re.finditer(r"^```([a-z ]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text[: match.start()].count("\n") + 1
            yield Block(page, line, match[1], match[2])


BLOCKS = list(_blocks())


def _of(language: str, page: str | None = None) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and page in (None, block.page)]


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


def _add_cutouts(folder: Path) -> None:
    """A mask for each photo, and more photos with theirs: what the training page starts from."""
    for number in range(8):
        shutil.copy(folder / "in.jpg", folder / "photos" / f"{number}.jpg")
    mask = Image.new("L", (160, 120))
    mask.paste(255, (40, 30, 120, 100))
    for photo in (folder / "photos").rglob("*.*"):
        target = folder / "cutouts" / photo.relative_to(folder / "photos").with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        mask.save(target)


def test_no_block_is_left_out() -> None:
    known = {"sh", "sh setup", "json", "toml", "python", "text"}
    known |= {"sh server", "python server", "json server"}
    known |= {"sh watch", "sh bucket", "sh cluster"}
    assert {block.language for block in BLOCKS} <= known
    # Nothing is hidden by a fence that is not recognised.
    assert all(text.count("```") % 2 == 0 for text in PAGES.values())
    assert sum(text.count("\n```") for text in PAGES.values()) == 2 * len(BLOCKS)


def test_readme_is_a_start_and_no_manual() -> None:
    assert README.count("\n") <= 200


@pytest.mark.skipif(shutil.which("bash") is None or os.name == "nt", reason="needs bash")
@pytest.mark.parametrize("block", _of("sh"), ids=str)
def test_shell_examples_run(block: Block, sandbox: Path) -> None:
    if "bgx train" in block.text:
        _add_cutouts(sandbox)
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


@pytest.mark.parametrize("block", _of("sh watch"), ids=str)
def test_examples_of_watching_run(block: Block, sandbox: Path) -> None:
    for line in block.text.splitlines():
        with watching(*shlex.split(line)[2:]) as watch:
            watch.wait_for(lambda: len(list(Path("cut").rglob("*.png"))) == 3, "three results")
            assert watch.stop() == ExitCode.OK
        if Path("done").is_dir():
            shutil.rmtree("photos")
            Path("done").rename("photos")
        shutil.rmtree("cut")


@pytest.mark.parametrize("block", _of("sh bucket"), ids=str)
def test_examples_with_buckets_run(block: Block, sandbox: Path, object_store: ObjectStore) -> None:
    for name in ("shoe.jpg", "sub/hat.jpg"):
        open_file(f"s3://shop/photos/{name}").write((sandbox / "photos" / name).read_bytes())
    for line in block.text.splitlines():
        assert bgx(*shlex.split(line)[1:]).code == ExitCode.OK, line
    for folder in ("s3://shop/cut", "cut", "s3://shop/cut2"):
        assert open_folder(folder).file("sub/hat.png").is_there()
    assert (sandbox / "shoe.png").is_file()


@pytest.fixture
def server(sandbox: Path) -> Iterator[Server]:
    """One that has all that the examples ask for."""
    with serving("--model", "u2netp", "--api-key", "secret", "--log-json", "--no-page") as running:
        yield running


@pytest.mark.programs("redis-server")
@pytest.mark.parametrize("block", _of("sh cluster"), ids=str)
def test_examples_of_more_than_one_machine_run(block: Block, sandbox: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    redis = Redis()
    redis.start()
    workers = []
    try:
        for line in block.text.splitlines():
            here = line.replace("redis://broker", redis.url).replace("/srv/shop", str(sandbox))
            words = ["bash", "-c", f"exec {here}"]
            started = subprocess.Popen(
                words, cwd=sandbox, env=os.environ | {"PATH": path}, start_new_session=True
            )
            if line.startswith("bgx worker") and "--check" not in line:
                workers.append(started)
            else:
                assert started.wait(240) == 0
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait(60)
        redis.stop()
    if workers:
        assert (sandbox / "cut" / "sub" / "hat.png").is_file()


@pytest.mark.programs("bash", "curl")
@pytest.mark.parametrize("block", _of("sh server"), ids=str)
def test_examples_of_the_server_run(block: Block, sandbox: Path) -> None:
    starts = [line for line in block.text.splitlines() if line.startswith("bgx serve")]
    for line in starts:
        with serving(*shlex.split(line)[2:]) as started:
            assert started.get("/readyz").status == 200
    with serving("--model", "u2netp") as server:
        for line in block.text.splitlines():
            if line in starts:
                continue
            here = line.replace("localhost:7000", f"127.0.0.1:{server.port}")
            result = subprocess.run(
                ["bash", "-c", here], cwd=sandbox, capture_output=True, text=True, check=False
            )
            assert result.returncode == 0, result.stderr
            made = sandbox / line.rpartition("-o ")[2]
            if made.suffix == ".json":
                assert json.loads(made.read_text(encoding="utf-8"))["cutout"]
                continue
            with Image.open(made) as picture:
                assert picture.format == made.suffix[1:].upper()


@pytest.mark.parametrize("block", _of("python server"), ids=str)
def test_examples_of_clients_run(block: Block, server: Server, sandbox: Path) -> None:
    text = block.text.replace("localhost:7000", f"127.0.0.1:{server.port}")
    subprocess.run([sys.executable, "-c", text], cwd=sandbox, check=True)

    with Image.open(sandbox / "no-bg.png") as picture:
        assert picture.mode == "RGBA"


def test_the_line_of_a_request_is_as_shown(server: Server, sandbox: Path) -> None:
    server.send((sandbox / "in.jpg").read_bytes(), x_api_key="secret")
    server.wait_for(lambda: any(line.startswith("{") for line in server.lines), "the line")
    real = json.loads(next(line for line in server.lines if line.startswith("{")))

    [block] = _of("json server")
    shown = json.loads(block.text)
    assert {name: type(value) for name, value in shown.items()} == {
        name: type(value) for name, value in real.items()
    }


def test_the_figures_of_the_server_are_explained(server: Server) -> None:
    figures = re.findall(r"^# TYPE (bgx_\w+)", server.get("/metrics").body.decode(), re.MULTILINE)
    explained = set(re.findall(r"`(bgx_\w+)`", PAGES["docs/operating.md"]))

    created = {name for name in figures if name.endswith("_created")}
    assert set(figures) - created == explained


@pytest.mark.parametrize("block", _of("python"), ids=str)
def test_python_examples_run(block: Block, sandbox: Path) -> None:
    exec(compile(block.text, str(block), "exec"), {})

    for name in re.findall(r"(?:save\(|remove\(.*, )\"([\w.]+)\"", block.text):
        with Image.open(sandbox / name) as picture:
            assert picture.mode == ("RGB" if name.endswith(".jpg") else "RGBA")


def test_the_batch_of_the_python_page_gives_an_outcome_for_each_photo(
    sandbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [block] = (block for block in _of("python", "docs/python.md") if "batch(" in block.text)

    exec(compile(block.text, str(block), "exec"), {})

    said = capsys.readouterr().out.splitlines()
    assert len([line for line in said if line.startswith("Done(")]) == 3
    assert any("missing.jpg" in line for line in said)
    assert (sandbox / "cut" / "sub" / "hat.png").is_file()


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


def test_the_report_page_explains_every_field() -> None:
    page = PAGES["docs/report.md"]
    [block] = _of("json")
    fields = {field for line in block.text.splitlines() for field in json.loads(line)}
    cells = re.findall(r"^\| (`[^|]+) \|", page, re.MULTILINE)
    explained = {name for cell in cells for name in re.findall(r"`(\w+)", cell)}
    assert fields <= explained


def test_preset_example_is_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = _of("toml", "docs/presets.md")
    (tmp_path / "presets.toml").write_text(block.text, encoding="utf-8")
    monkeypatch.setenv("BGX_PRESETS", str(tmp_path / "presets.toml"))
    assert "our-shop" in load_presets()


def test_registry_example_is_a_registry(tmp_path: Path) -> None:
    [block] = _of("toml", "docs/models.md")
    own = tmp_path / "own.toml"
    own.write_text(block.text, encoding="utf-8")
    [name] = tomllib.loads(block.text)
    assert load_registry(own)[name].licence == "Apache-2.0"


def test_every_network_of_the_registry_is_in_the_list() -> None:
    table = PAGES["docs/models.md"].partition("## ")[0]
    assert set(re.findall(r"`([\w-]+)`", table)) >= load_registry().keys()


def test_ci_runs_the_test_command() -> None:
    test_command = next(block.text for block in _of("sh setup") if "pytest" in block.text)
    assert test_command in (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    folder = (REPOSITORY / page).parent
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve() if name else REPOSITORY / page
        assert path.is_file(), target
        if anchor:
            text = path.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            assert anchor in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}


def test_readme_leads_to_every_page() -> None:
    assert {page for page in PAGES if page != "README.md"} <= set(
        re.findall(r"\]\(([^)#]+)", README)
    )


def _load(name: str) -> ModuleType:
    """A script of .ci/."""
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def generator() -> ModuleType:
    return _load("docs")


@pytest.mark.parametrize("page", PAGES)
def test_generated_parts_are_current(page: str, generator: ModuleType) -> None:
    assert generator.render(PAGES[page]) == PAGES[page], "run: python .ci/docs.py"


def test_every_generated_part_is_shown(generator: ModuleType) -> None:
    shown = [name for text in PAGES.values() for name in re.findall(r"^<!-- (.+) -->$", text, re.M)]
    assert set(shown) - {"end"} == generator.GENERATORS.keys()


@pytest.mark.parametrize("text", ["<!-- speed -->\n", "<!-- no such part -->\n<!-- end -->\n"])
def test_a_part_that_cannot_be_generated_is_an_error(text: str, generator: ModuleType) -> None:
    with pytest.raises(SystemExit):
        generator.render(text)


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


def test_speed_tables_name_the_options_that_were_measured(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(generator.RESULTS, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "vs_rembg-12mp.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["settings"]["bgx options"] = ["--no-refine"]
    path.write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(generator, "RESULTS", tmp_path)

    assert "| 24 photos of 4000 x 3000, bgx with `--no-refine` |" in generator.show_speed_summary()


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


def test_the_picture_shows_what_bgx_makes() -> None:
    made = np.asarray(_load("before_after").draw(), np.float32)

    with Image.open(REPOSITORY / "docs" / "images" / "before-after.jpg") as shown:
        difference = np.abs(np.asarray(shown, np.float32) - made)

    assert difference.mean() < 4


def test_exit_codes_are_all_there() -> None:
    table = README.partition("## Exit codes")[2].partition("\n## ")[0]
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert listed == {code.value for code in ExitCode}


def test_every_command_is_documented() -> None:
    from bgx.cli import main

    for name in main.Commands.names:
        assert any(f"bgx {name}" in text for text in PAGES.values())

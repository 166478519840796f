"""The network that comes with bgx: the main job with nothing fetched, and when it is taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from bgx import Remover
from bgx.cli.main import run
from bgx.errors import BadModelError, ExitCode, MissingModelError
from bgx.model.registry import builtin_file
from bgx.model.store import Store
from bgx.settings import ModelSettings
from support.networks import tiny_network

SAMPLE = Path(__file__).parent / "data" / "sample.jpg"


def test_the_main_job_needs_no_download(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BGX_OFFLINE", "1")
    target = tmp_path / "out.png"
    assert run(["remove", str(SAMPLE), str(target)]) == ExitCode.OK
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "u2net: not on this machine" in lines[0]
    assert "using lite" in lines[0]
    with Image.open(target) as cutout:
        assert cutout.size == (1200, 900)
        alpha = np.asarray(cutout.getchannel("A"))
    # The subject fills the middle, the wood around it is gone.
    assert alpha[300:800, 500:800].min() > 240
    assert alpha[:, :200].max() < 50
    assert alpha[:, -150:].max() < 50


def test_what_was_asked_for_by_name_is_never_replaced() -> None:
    assert run(["remove", str(SAMPLE), "-", "--model", "u2net", "--offline"]) == ExitCode.MODEL


@pytest.mark.parametrize(("present", "taken"), [(["u2netp"], "u2netp"), ([], "lite")])
def test_the_best_network_that_is_here_takes_the_place_of_the_default(
    present: list[str], taken: str, tmp_path: Path
) -> None:
    network = tiny_network(tmp_path / "tiny.onnx")
    for name in present:
        assert run(["models", "add", name, str(network)]) == ExitCode.OK
    store = Store(ModelSettings.from_environment(offline=True))
    assert store.resolve(None, store.registry()).entry.name == taken


def test_the_default_is_taken_where_it_is_here(tmp_path: Path) -> None:
    network = tiny_network(tmp_path / "tiny.onnx")
    assert run(["models", "add", "u2net", str(network)]) == ExitCode.OK
    store = Store(ModelSettings.from_environment(offline=True))
    assert store.resolve(None, store.registry()).entry.name == "u2net"


def test_a_fetch_that_fails_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens on port 9 (discard) of this machine.
    monkeypatch.setenv("BGX_MODEL_MIRROR", "http://127.0.0.1:9")
    assert run(["remove", str(SAMPLE), str(tmp_path / "out.png")]) == ExitCode.OK
    [line] = capsys.readouterr().err.splitlines()
    assert "u2net" in line
    assert "using lite" in line


def test_a_damaged_default_is_not_passed_over(tmp_path: Path) -> None:
    store = Store(ModelSettings.from_environment(offline=True))
    network = tiny_network(tmp_path / "tiny.onnx")
    assert run(["models", "add", "u2net", str(network)]) == ExitCode.OK
    (store.models / "u2net.onnx").write_bytes(b"damaged")
    with pytest.raises(BadModelError, match="damaged"):
        store.resolve(None, store.registry())


def test_the_report_says_which_network_ran(tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    words = ["remove", str(SAMPLE), str(tmp_path / "o.png"), "--offline", "--report", str(report)]
    assert run(words) == ExitCode.OK
    assert '"model": "lite"' in report.read_text().splitlines()[-1]


def test_no_default_at_all_is_a_missing_model(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(ModelSettings.from_environment(offline=True))
    registry = {name: entry for name, entry in store.registry().items() if name != "lite"}
    with pytest.raises(MissingModelError, match="u2net"):
        store.resolve(None, registry)


def test_its_file_fits_in_the_package() -> None:
    assert builtin_file("lite.onnx").stat().st_size <= 3_000_000


def test_python_takes_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGX_OFFLINE", "1")
    cutout = Remover().cut(SAMPLE)
    assert cutout.measured.trust.subjects == 1


def test_a_file_says_itself_how_it_is_fed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.onnx"
    mine.write_bytes(builtin_file("lite.onnx").read_bytes())
    store = Store()
    assert store.resolve(str(mine), store.registry()).entry.input == (288, 288)
    model = onnx.load(mine)
    del model.metadata_props[:]
    onnx.save(model, mine)
    assert store.resolve(str(mine), store.registry()).entry.free

"""``train()``: folders in, a network's file out."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bgx.cli.main import run
from bgx.errors import BadModelError, ExitCode, MissingModelError, OutputError, UsageError
from bgx.install import install_hint
from bgx.train import Progress, Score, TrainSettings, train
from bgx.train.job import NOTHING
from support.networks import tiny_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Folders of twelve photos and their cut-outs: the red disc is the subject, not the blue square
    beside it.
    """
    return write_pairs(tmp_path, 12)


def write_pairs(folder: Path, count: int) -> tuple[Path, Path]:
    photos, cutouts = folder / "photos", folder / "cutouts"
    photos.mkdir()
    cutouts.mkdir()
    chance = np.random.default_rng(0)
    width, height = 200, 160
    for index in range(count):
        noise = chance.normal(200, 6, (height, width, 3)).clip(0, 255).astype(np.uint8)
        photo, matte = Image.fromarray(noise), Image.new("L", (width, height))
        x, y, radius = (int(value) for value in chance.integers((30, 30, 15), (170, 130, 28)))
        left, top, side = (int(value) for value in chance.integers((10, 10, 25), (130, 90, 50)))
        disc = (x - radius, y - radius, x + radius, y + radius)
        drawing = ImageDraw.Draw(photo)
        drawing.rectangle((left, top, left + side, top + side), fill=(40, 70, 170))
        drawing.ellipse(disc, fill=(190, 50, 40))
        ImageDraw.Draw(matte).ellipse(disc, fill=255)
        photo.save(photos / f"{index}.jpg", quality=92)
        photo.putalpha(matte)
        photo.save(cutouts / f"{index}.png")
    return photos, cutouts


def settings_for(
    folders: tuple[Path, Path], *, output: str = "mine.onnx", start: str = NOTHING, epochs: int = 1
) -> TrainSettings:
    photos, cutouts = folders
    return TrainSettings(
        photos, cutouts, photos.parent / output, start=start, epochs=epochs, batch=8, device="cpu"
    )


def stop_at(step: int) -> Callable[[Progress], None]:
    def progress(now: Progress) -> None:
        if now.step == step:
            raise KeyboardInterrupt

    return progress


def test_a_file_comes_out_and_can_be_gone_on_from(folders: tuple[Path, Path]) -> None:
    first = train(settings_for(folders))
    assert first.output.is_file()
    assert (first.pairs, first.held_back, first.labelled) == (10, 2, 0)
    assert not settings_for(folders).checkpoint.exists()
    second = train(settings_for(folders, output="more.onnx", start=str(first.output)))
    # Scored on the same pairs, so what one run ends with is what the next begins with.
    assert second.before.max_f == pytest.approx(first.after.max_f, abs=0.01)
    assert second.before.mae == pytest.approx(first.after.mae, abs=0.01)


def test_the_same_seed_gives_the_same_file(folders: tuple[Path, Path]) -> None:
    one = train(settings_for(folders, output="one.onnx")).output
    two = train(settings_for(folders, output="two.onnx")).output
    assert one.read_bytes() == two.read_bytes()


def test_bad_pairs_are_listed_and_left_out(folders: tuple[Path, Path]) -> None:
    photos, cutouts = folders
    Image.new("RGBA", (200, 160)).save(cutouts / "0.png")
    (photos / "1.jpg").write_bytes(b"no picture")
    (cutouts / "2.png").unlink()
    result = train(settings_for(folders))
    assert {bad.name for bad in result.bad} == {"0", "1", "2"}
    assert result.pairs + result.held_back == 9


def test_too_few_pairs_say_what_is_wrong_with_them(folders: tuple[Path, Path]) -> None:
    _, cutouts = folders
    for index in range(6):
        (cutouts / f"{index}.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"6 pairs.*needs 8.*0\.png: is empty"):
        train(settings_for(folders))


def test_a_teacher_labels_what_has_no_cutout(folders: tuple[Path, Path], tmp_path: Path) -> None:
    photos, cutouts = folders
    for index in range(4):
        (cutouts / f"{index}.png").unlink()
    settings = settings_for(folders)
    teacher = tiny_network(tmp_path / "teacher.onnx")
    result = train(
        TrainSettings(
            photos, cutouts, settings.output, start=NOTHING, teacher=str(teacher), epochs=1, batch=8
        )
    )
    assert (result.labelled, result.bad) == (4, ())
    assert result.pairs + result.held_back == 12
    # With eight cut-outs of the user's own, nothing of the teacher's is held back.
    assert result.mixtures == 2 * 4


def test_own_cutouts_are_not_mixed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    teacher = tiny_network(tmp_path / "teacher.onnx")
    result = train(replace(settings_for(folders), teacher=str(teacher)))
    assert (result.labelled, result.mixtures) == (0, 0)


def score_in_turn(monkeypatch: pytest.MonkeyPatch, *found: float) -> None:
    """Have the held-back pairs answer these max-Fs, call by call."""
    scores = iter(Score(max_f, 0.1) for max_f in found)
    monkeypatch.setattr("bgx.train.fit.evaluate", lambda *_: next(scores))


def test_a_better_network_is_not_replaced(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(folders)
    content = train(settings).output.read_bytes()
    start, new, old = 0.1, 0.7, 0.8
    score_in_turn(monkeypatch, start, new, old)
    with pytest.raises(UsageError, match=r"mine\.onnx: kept, it is better \(max-F 0\.800"):
        train(settings)
    assert settings.output.read_bytes() == content
    # Moved away, the new one comes from its checkpoint without being trained again.
    settings.output.rename(settings.output.with_name("older.onnx"))
    score_in_turn(monkeypatch, start, new)
    assert train(settings, progress=stop_at(1)).after.max_f == new


def test_a_worse_network_is_replaced(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(folders)
    content = train(settings).output.read_bytes()
    start, new, old = 0.1, 0.7, 0.6
    score_in_turn(monkeypatch, start, new, old)
    train(replace(settings, seed=1))
    assert settings.output.read_bytes() != content


def test_a_file_of_another_kind_is_never_replaced(folders: tuple[Path, Path]) -> None:
    settings = settings_for(folders)
    tiny_network(settings.output)
    with pytest.raises(BadModelError, match=r"mine\.onnx"):
        train(settings, progress=stop_at(1))


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(folders: tuple[Path, Path]) -> None:
    whole = train(settings_for(folders, output="whole.onnx", epochs=48))
    settings = settings_for(folders, output="parts.onnx", epochs=48)
    with pytest.raises(KeyboardInterrupt):
        train(settings, progress=stop_at(57))
    assert settings.checkpoint.is_file()
    assert train(settings).output.read_bytes() == whole.output.read_bytes()


@pytest.mark.slow
def test_forty_pairs_make_lite_better(tmp_path: Path) -> None:
    photos, cutouts = write_pairs(tmp_path, 40)
    result = train(TrainSettings(photos, cutouts, tmp_path / "mine.onnx", device="cpu"))
    assert result.after.max_f > result.before.max_f + 0.05
    assert result.after.mae < result.before.mae / 2


def test_an_output_that_cannot_be_written_is_said(folders: tuple[Path, Path]) -> None:
    settings = settings_for(folders)
    settings.output.mkdir()
    with pytest.raises((OutputError, BadModelError), match=r"mine\.onnx"):
        train(settings, progress=stop_at(1))


def test_an_unknown_start_is_said(folders: tuple[Path, Path]) -> None:
    with pytest.raises(MissingModelError, match=r"nowhere\.onnx"):
        train(settings_for(folders, start="nowhere.onnx"))


def test_without_torch_the_remedy_is_said(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=re.escape(install_hint("train"))):
        train(settings_for(folders))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"output": "mine.pt"}, r"\.onnx"),
        ({"epochs": 0}, "--epochs 0"),
        ({"seed": 2**63}, "--seed 9223372036854775808"),
        ({"batch": 0}, "--batch 0"),
        ({"rate": 1.5}, "--rate 1.5"),
        ({"seed": -1}, "--seed -1"),
        ({"device": "tpu"}, "--device tpu"),
        ({"cutouts": None}, "--teacher"),
    ],
)
def test_wrong_settings_are_said_at_once(
    tmp_path: Path, wrong: dict[str, object], said: str
) -> None:
    values: dict[str, object] = {
        "photos": tmp_path,
        "cutouts": tmp_path,
        "output": tmp_path / "mine.onnx",
    }
    values |= wrong
    if isinstance(wrong.get("output"), str):
        values["output"] = tmp_path / str(wrong["output"])
    with pytest.raises(UsageError, match=said):
        TrainSettings(**values)  # type: ignore[arg-type]


def test_the_command_trains_and_its_file_is_a_model(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos, _ = folders
    (photos / "0.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    assert run(["train", "photos", "cutouts", "-o", "mine.onnx", "--epochs", "1"]) == ExitCode.OK
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()[-3:]] == [
        "before",
        "after",
        "mine.onnx",
    ]
    assert "not used: 0: " in told.err
    assert run(["batch", "photos", "-o", "cut", "--model", "mine.onnx"]) == ExitCode.PICTURES
    assert len(list((tmp_path / "cut").iterdir())) == 11
    again = ["train", "photos", "cutouts", "-o", "mine.txt"]
    assert run(again) == ExitCode.USAGE

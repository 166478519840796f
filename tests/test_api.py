"""The Python API: the command line's results, with errors raised or yielded."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import bgx
from bgx import Cutout, Remover, remove
from bgx.errors import (
    MissingModelError,
    OutputError,
    UnknownModelError,
    UnreadableError,
    UnwritableError,
    UsageError,
)
from bgx.run.outcome import Done, Failed, Skipped
from support import shell
from support.fakes import draw_photo, save_photo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bgx.run.outcome import Outcome


@pytest.fixture(autouse=True)
def _workplace(stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def remover() -> Remover:
    return Remover("u2netp", device="cpu")


def as_bytes(photo: Image.Image) -> bytes:
    stream = io.BytesIO()
    photo.save(stream, format="PNG")
    return stream.getvalue()


# One picture --------------------------------------------------------------------------------------


def test_a_picture_may_be_a_path_its_name_its_bytes_or_an_image(remover: Remover) -> None:
    photo = draw_photo((90, 60))
    path = save_photo(Path("in.png"), size=(90, 60))

    cutouts = [remover.cut(source) for source in (photo, path, "in.png", as_bytes(photo))]

    assert {cutout.image.mode for cutout in cutouts} == {"RGBA"}
    assert {cutout.matte.tobytes() for cutout in cutouts} == {cutouts[0].matte.tobytes()}
    assert cutouts[0].image.getpixel((45, 30)) == (255, 255, 255, 255)
    assert cutouts[0].image.getpixel((1, 1)) == (0, 0, 0, 0)


def test_saving(remover: Remover) -> None:
    save_photo(Path("in.jpg"))

    remover.cut("in.jpg").save("new/out.webp")

    with Image.open("new/out.webp") as image:
        assert (image.format, image.mode) == ("WEBP", "RGBA")


@pytest.mark.parametrize(
    ("target", "error"),
    [("out.xyz", UsageError), ("", UsageError), ("folder.png", UnwritableError)],
)
def test_what_cannot_be_saved_raises_an_error_of_bgx(
    remover: Remover, target: str, error: type[Exception]
) -> None:
    save_photo(Path("in.jpg"))
    Path("folder.png").mkdir()

    with pytest.raises(error):
        remover.cut("in.jpg").save(target)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("quality", 0),
        ("quality", 101),
        ("quality", "90"),
        ("png_level", "tiny"),
        ("file_format", "jpeg"),
        ("file_format", "PNG"),
    ],
)
def test_a_wrong_value_for_a_file_is_a_usage_error(
    remover: Remover, option: str, value: object
) -> None:
    options: Any = {"file_format": "jpg"} | {option: value}
    with pytest.raises(UsageError, match=f"{value}: use"):
        remover.cut(draw_photo()).encode(**options)


def test_remove_does_not_overwrite_its_source() -> None:
    save_photo(Path("in.png"))
    before = Path("in.png").read_bytes()

    with pytest.raises(UsageError, match="would overwrite an input"):
        remove("in.png", Path("in.png").absolute(), model="u2netp")

    assert Path("in.png").read_bytes() == before


def test_remove_in_one_line() -> None:
    save_photo(Path("in.jpg"))

    remove("in.jpg", "out.png", model="u2netp")

    with Image.open("out.png") as image:
        assert image.mode == "RGBA"


def test_options_of_a_picture(remover: Remover) -> None:
    photo = draw_photo()

    assert remover.cut(photo, mask_only=True).image.mode == "L"
    for white in ("white", "#ffffff", (255, 255, 255)):
        assert remover.cut(photo, background=white).image.getpixel((0, 0)) == (255, 255, 255)


def test_what_it_came_to(remover: Remover) -> None:
    measured = remover.cut(draw_photo((90, 60))).measured

    assert (measured.width, measured.height) == (90, 60)
    assert measured.bbox is not None
    assert 0.1 < measured.coverage < 0.5


def test_errors_are_raised_and_name_the_picture(remover: Remover) -> None:
    with pytest.raises(UnreadableError, match=r"gone\.jpg: cannot be read"):
        remover.cut("gone.jpg")
    with pytest.raises(UnreadableError, match="picture: not a picture"):
        remover.cut(b"text")


def test_wrong_values_are_told_before_anything_is_loaded() -> None:
    for options in ({"device": "gpu"}, {"workers": 0}, {"max_size": 1}, {"max_pixels": 0}):
        with pytest.raises(UsageError):
            Remover(**options)
    others: Any = ({"device": None}, {"threads": "2"}, {"max_size": "800"}, {"max_pixels": None})
    for options in others:
        with pytest.raises(UsageError, match=f"{next(iter(options.values()))}: use"):
            Remover(**options)
    with pytest.raises(UsageError, match="whitish"):
        Remover("nosuch").cut(draw_photo(), background="whitish")


def test_the_network_is_looked_for_when_the_first_picture_comes() -> None:
    with pytest.raises(UnknownModelError, match="did you mean u2netp"):
        Remover("u2nettp").cut(draw_photo())
    with pytest.raises(MissingModelError, match=r"gone\.onnx: cannot be read"):
        Remover(Path("gone.onnx")).cut(draw_photo())
    with pytest.raises(MissingModelError, match="bgx models download silueta"):
        Remover("silueta", offline=True).cut(draw_photo())


def test_a_remover_is_shared_by_threads(remover: Remover) -> None:
    """The first of them come at once."""
    photos = [draw_photo((60 + number, 40)) for number in range(8)]
    gate = threading.Barrier(4)

    def cut(photo: Image.Image) -> Cutout:
        if photo.width < 64:
            gate.wait(60)
        return remover.cut(photo)

    with ThreadPoolExecutor(4) as pool:
        cutouts = list(pool.map(cut, photos))

    for photo, cutout in zip(photos, cutouts, strict=True):
        assert cutout.image.size == photo.size
        assert cutout.matte.tobytes() == remover.cut(photo).matte.tobytes()


# Many pictures ------------------------------------------------------------------------------------


def test_many_come_in_order_with_errors_in_their_places(remover: Remover) -> None:
    photos = [draw_photo((40 + number, 40)) for number in range(6)]
    sources: list[bytes | Image.Image] = [*photos[:3], b"text", *photos[3:]]

    results = list(remover.cut_many(iter(sources)))

    assert isinstance(results[3], UnreadableError)
    cutouts = [result for result in results if isinstance(result, Cutout)]
    assert [cutout.image.width for cutout in cutouts] == [40, 41, 42, 43, 44, 45]
    for photo, cutout in zip(photos, cutouts, strict=True):
        assert cutout.matte.tobytes() == remover.cut(photo).matte.tobytes()


def test_many_are_taken_only_as_far_ahead_as_fits() -> None:
    taken = 0

    def photos() -> Iterator[Image.Image]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield draw_photo()

    results = Remover("u2netp", device="cpu", workers=2).cut_many(photos())
    next(results)

    assert taken < 10
    assert sum(1 for _ in results) == 99


# Batches ------------------------------------------------------------------------------------------


def outcomes_by_name(outcomes: Iterator[Outcome]) -> dict[str, Outcome]:
    return {Path(str(outcome.job.source)).name: outcome for outcome in outcomes}


def test_a_batch_yields_an_outcome_a_picture(remover: Remover) -> None:
    save_photo(Path("in/a.jpg"))
    save_photo(Path("in/sub/b.jpg"))
    Path("in/c.jpg").write_bytes(b"")

    first = {
        Path(str(outcome.job.source)).name: outcome for outcome in remover.batch(["in"], out="out")
    }
    second = {
        Path(str(outcome.job.source)).name: outcome for outcome in remover.batch(["in"], out="out")
    }

    assert {name: type(outcome) for name, outcome in first.items()} == {
        "a.jpg": Done,
        "b.jpg": Done,
        "c.jpg": Failed,
    }
    assert str(first["b.jpg"].job.target) == str(Path("out/sub/b.png"))
    assert {name: type(outcome) for name, outcome in second.items()} == {
        "a.jpg": Skipped,
        "b.jpg": Skipped,
        "c.jpg": Failed,
    }


def test_a_colour_is_three_numbers(remover: Remover) -> None:
    photo = save_photo(Path("colour.jpg"))
    listed = remover.cut(photo, background=[9, 8, 7])  # type: ignore[arg-type]
    assert listed.image.getpixel((0, 0)) == (9, 8, 7)
    for wrong in ((1, 2), (1, 2, 3, 4), (0, 0, 256), 7):
        with pytest.raises(UsageError, match="three numbers"):
            remover.cut(photo, background=wrong)  # type: ignore[arg-type]


def test_a_picture_without_pixels_is_an_error_of_the_picture(remover: Remover) -> None:
    for size in ((0, 5), (5, 0), (0, 0)):
        with pytest.raises(UnreadableError, match="holds no pixels"):
            remover.cut(Image.new("RGB", size))


@pytest.mark.parametrize("source", [None, 3, np.zeros((9, 9, 3), np.uint8), bytearray(b"x")])
def test_what_is_no_picture_at_all_is_told_with_a_remedy(remover: Remover, source: Any) -> None:
    with pytest.raises(UnreadableError, match=rf"is of type {type(source).__name__}; use a path"):
        remover.cut(source)
    [error, cutout] = remover.cut_many([source, draw_photo()])
    assert (type(error), type(cutout)) == (UnreadableError, Cutout)


def test_none_is_as_if_left_out(remover: Remover) -> None:
    photo = save_photo(Path("none.jpg"))
    framed = remover.cut(photo, preset="amazon", canvas=None, matte=None)  # type: ignore[arg-type]
    assert framed.image.size == remover.cut(photo, preset="amazon").image.size
    [done] = remover.batch([photo], "none", format=None)
    assert str(done.job.target) == str(Path("none/none.png"))


def test_a_batch_never_writes_over_its_background(remover: Remover) -> None:
    photo, behind = save_photo(Path("on.jpg")), save_photo(Path("behind/on.png"))
    with pytest.raises(UsageError, match="overwrite an input"):
        list(remover.batch([photo], "behind", background=str(behind), existing="overwrite"))


def test_a_batch_writes_what_the_command_line_writes(remover: Remover) -> None:
    save_photo(Path("in/a.png"), size=(90, 60))

    outcomes = list(remover.batch([Path("in")], "ours", format="jpg", background="#102030"))
    options = ("--format", "jpg", "--background", "#102030")
    assert shell.bgx("batch", "in", "-o", "theirs", *options).code == 0

    assert len(outcomes) == 1
    assert Path("ours/a.jpg").read_bytes() == Path("theirs/a.jpg").read_bytes()


def test_a_batch_raises_what_makes_no_sense(remover: Remover) -> None:
    save_photo(Path("in/a.jpg"))

    # Before the first outcome is asked for.
    with pytest.raises(UsageError, match="is the input folder too"):
        remover.batch(["in"], out="in")
    with pytest.raises(UsageError, match="--quality has no meaning for png"):
        remover.batch(["in"], out="out", quality=80)
    with pytest.raises(UsageError, match="--existing Overwrite: use one of skip, update"):
        remover.batch(["in"], out="out", existing="Overwrite")  # type: ignore[arg-type]
    with pytest.raises(OutputError, match="cannot be created"):
        remover.batch(["in"], out="in/a.jpg/out")


def test_a_batch_logs_which_names_it_changed(
    remover: Remover, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jpg", "a.png"):
        save_photo(Path("in", name))

    outcomes = list(remover.batch(["in"], out="out"))

    targets = {Path(str(outcome.job.target)).name for outcome in outcomes}
    assert len(targets) == 2
    assert "would share a target" in caplog.text
    assert any(name in caplog.text for name in targets)


def test_a_name_that_is_none_is_told(remover: Remover) -> None:
    with pytest.raises(UsageError, match="backgrund: no such option; did you mean background"):
        remover.cut(draw_photo(), backgrund="white")  # type: ignore[call-arg]


def test_a_batch_may_be_one_folder(remover: Remover) -> None:
    save_photo(Path("in/a.jpg"))
    for inputs in ("in", Path("in")):
        [outcome] = remover.batch(inputs, out="out", existing="overwrite")
        assert isinstance(outcome, Done)


@pytest.mark.parametrize(
    "options",
    [
        {"fill": 0.85},
        {"canvas": (800, 800)},
        {"shadow": True},
        {"quality": "90"},
        {"margin": []},
        {"refine": "no"},
        {"crop": 1},
    ],
    ids=str,
)
def test_a_value_of_another_type_is_a_usage_error(remover: Remover, options: Any) -> None:
    [option] = options
    with pytest.raises(UsageError, match=f"--{option}"):
        remover.cut(draw_photo(), **options)


def test_a_batch_that_has_nothing_to_do_loads_no_network() -> None:
    save_photo(Path("in/a.jpg"))
    save_photo(Path("out/a.png"))

    [outcome] = Remover("nosuch").batch(["in"], out="out")

    assert isinstance(outcome, Skipped)


def test_existing_targets_are_redone_when_asked(remover: Remover) -> None:
    save_photo(Path("in/a.jpg"))
    for number, existing in enumerate(["skip", "overwrite", "update"]):
        save_photo(Path("out/a.png"), size=(9, 9))
        os.utime("out/a.png", (1000, 1000))
        [outcome] = remover.batch(["in"], out="out", existing=existing)  # type: ignore[arg-type]
        assert isinstance(outcome, Skipped if number == 0 else Done)


# The package --------------------------------------------------------------------------------------


def test_the_package_exports_the_door() -> None:
    assert bgx.Remover is Remover
    assert sorted(bgx.__all__) == ["Cutout", "Remover", "__version__", "remove"]
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        bgx.nosuch  # noqa: B018

"""The quality benchmark's measures, and that bgx does well by them."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bgx.image.foreground import restore_foreground
from bgx.model.optimize import copies
from bgx.model.optimize.gate import Measurement
from bgx.model.prepare import prepare
from bgx.model.store import ModelFile, Store
from bgx.options import OutputSettings
from bgx.settings import ModelSettings
from support.networks import tiny_network

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# Benchmarks are scripts that import their neighbours: they run with their own folder on the path.
sys.path.insert(0, str(BENCHMARKS))
import quality  # noqa: E402

Map = NDArray[np.float32]


def square(side: int = 40, size: int = 100) -> Map:
    values = np.zeros((size, size), np.float32)
    values[30 : 30 + side, 20 : 20 + side] = 1
    return values


def test_a_perfect_matte_has_no_error() -> None:
    truth = square()
    truth[30] = 0.5

    assert set(quality.measure_alpha(truth, truth).values()) == {0}
    measured = quality.measure_mask(truth, truth)
    assert measured["MAE"] == 0
    assert measured["IoU"] == 1


def test_a_perfect_mask_has_the_highest_scores() -> None:
    truth = square()

    assert quality.max_f([truth], [truth]) == pytest.approx(1)
    assert quality.structure_measure(truth, truth > 0) == pytest.approx(1, abs=1e-3)


def test_half_a_subject_is_half_the_union() -> None:
    truth, found = square(), square()
    found[30:50] = 0

    measured = quality.measure_mask(found, truth)
    assert measured["IoU"] == pytest.approx(0.5)
    assert measured["MAE"] == pytest.approx(0.08)


def test_precision_counts_more_than_recall() -> None:
    truth = square()
    missing, excess = square(), square()
    missing[30:40] = 0
    excess[70:80, 20:60] = 1

    # F = 1.3 P R / (0.3 P + R): all precise, three quarters found; four fifths precise, all found.
    assert quality.max_f([missing], [truth]) == pytest.approx(1.3 * 0.75 / (0.3 + 0.75))
    assert quality.max_f([excess], [truth]) == pytest.approx(1.3 * 0.8 / (0.3 * 0.8 + 1))


def test_structure_falls_with_what_is_wrong() -> None:
    truth = square()
    shifted = np.roll(truth, 8, axis=1)
    inverted = 1 - truth

    scores = [quality.structure_measure(matte, truth > 0) for matte in (truth, shifted, inverted)]

    assert scores == sorted(scores, reverse=True)
    assert scores[2] < 0.1


def test_holes_and_veils_are_shares_of_their_area() -> None:
    truth = square(60)
    truth[50:60, 40:60] = 0
    found = truth.copy()
    found[50:60, 40:50] = 1
    inside = np.zeros_like(truth, bool)
    inside[70:84, 30:74] = True
    found[inside] = 0.5

    measured = quality.measure_inside([found, square()], [truth, square()])

    assert measured["holes"] == 0.5
    assert 0 < measured["veil"] < 1
    assert quality.measure_inside([truth], [truth]) == {"holes": 1, "veil": 0}
    assert quality.measure_inside([square()], [square()]) == {"veil": 0}


def test_drawn_shapes_have_holes() -> None:
    for shape in quality.draw_shapes(3):
        assert quality.measure_inside([shape.alpha], [shape.alpha]) == {"holes": 1, "veil": 0}


def test_the_edge_is_around_what_is_soft() -> None:
    truth = np.zeros((60, 60), np.float32)
    truth[:, 30] = 0.5
    truth[:, 31:] = 1

    columns = np.flatnonzero(quality.find_edge(truth).all(axis=0))

    assert columns.tolist() == list(range(30 - quality.EDGE, 31 + quality.EDGE))


def test_errors_at_the_edge_are_counted_there() -> None:
    truth = np.zeros((60, 60), np.float32)
    truth[:, 30] = 0.5
    truth[:, 31:] = 1
    far, near = truth.copy(), truth.copy()
    far[:, 0] = 1
    near[:, 30] = 1

    assert quality.measure_alpha(far, truth)["edge"] == 0
    assert quality.measure_alpha(near, truth)["edge"] == pytest.approx(0.5 / 11)
    assert quality.measure_alpha(near, truth)["SAD"] == pytest.approx(0.03)


def test_sets_are_read_by_stem_and_masks_are_binary(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.jpg")
    Image.new("L", (8, 6), 200).save(tmp_path / "masks" / "a.png")
    Image.new("L", (8, 6), 200).save(tmp_path / "masks" / "without photo.png")

    [case] = quality.read_set(tmp_path)

    assert (case.name, case.path.name, case.binary) == ("a", "a.jpg", True)
    assert (case.truth == 1).all()


def test_a_folder_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no images/"):
        quality.read_set(tmp_path)


def test_true_alpha_and_restored_colours_halve_the_colour_error() -> None:
    for scene in quality.draw_scenes(4):
        alpha = Image.fromarray(np.rint(scene.alpha * 255).astype(np.uint8))
        kept, restored = scene.photo.copy(), scene.photo.copy()
        empty = Image.new("RGB", kept.size)
        multiplied = Image.composite(kept, empty, alpha)
        restore_foreground(restored, alpha, scene.photo)
        for cutout in (kept, restored, multiplied):
            cutout.putalpha(alpha)

        error = quality.measure_colours(restored, scene)

        assert error < quality.measure_colours(multiplied, scene) / 2
        assert error < quality.measure_colours(kept, scene) / 2


def test_crops_stand_side_by_side(tmp_path: Path) -> None:
    photo = tmp_path / "set" / "images" / "a.png"
    photo.parent.mkdir(parents=True)
    Image.new("RGB", (200, 100), "red").save(photo)
    truth = np.zeros((100, 200), np.float32)
    cutouts = [Image.new("RGBA", (200, 100), (255, 0, 0, level)) for level in (0, 255)]
    results = {str(number): quality.Result([cutout]) for number, cutout in enumerate(cutouts)}

    quality.write_pictures(tmp_path / "out", [quality.Case("a", photo, truth, False)], results)

    with Image.open(tmp_path / "out" / "set-a.png") as strip:
        assert strip.size == (3 * 324, 320)
        assert strip.getpixel((10, 10)) == (255, 0, 0)
        assert strip.getpixel((334, 10)) == quality.BESIDE
        assert strip.getpixel((658, 10)) == (255, 0, 0)


@pytest.fixture
def photo_set(tmp_path: Path) -> Path:
    """Two photos with masks and the same two with alpha, in folders "masked" and "soft"."""
    for name, kind in (("masked", "masks"), ("soft", "alpha")):
        for part in ("images", kind):
            (tmp_path / name / part).mkdir(parents=True)
        for number in range(2):
            photo, truth = Image.new("RGB", (160, 120)), Image.new("L", (160, 120))
            box = (40 + 10 * number, 30, 120, 100)
            photo.paste("orange", box)
            truth.paste(255, box)
            photo.save(tmp_path / name / "images" / f"{number}.png")
            truth.save(tmp_path / name / kind / f"{number}.png")
    return tmp_path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(ModelSettings(folder=tmp_path / "home"))


@pytest.fixture
def file(tmp_path: Path, store: Store) -> ModelFile:
    return store.resolve(str(tiny_network(tmp_path / "tiny.onnx")), store.registry())


def install_8_bits(file: ModelFile, store: Store) -> None:
    passed = Measurement(0.001, 0.99, 20.0, 10.0, 4)
    copies.install(file, store, prepare(file.path), passed)


def benchmark(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["quality.py", *map(str, words)])
    quality.main()


def test_the_mode_called_default_is_what_bgx_does_unasked() -> None:
    assert quality.MODES[quality.DEFAULT] == OutputSettings()
    assert quality.MODES[quality.PLAIN] == OutputSettings(refine=False)


def test_8_bits_are_left_out_in_one_line_where_there_is_no_copy(
    file: ModelFile, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(quality.open_modes(file, store)) == list(quality.MODES)
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("bgx --no-refine --precision int8 is left out: ")


def test_8_bits_run_where_there_is_a_copy(file: ModelFile, store: Store) -> None:
    install_8_bits(file, store)

    modes = quality.open_modes(file, store)

    precisions = {name: mode.precision for name, mode in modes.items()}
    assert list(modes) == list(quality.OPTIONS)
    assert precisions == dict.fromkeys(quality.MODES, "fp32") | {quality.INT8: "int8"}


def test_times_are_shares_of_the_slowest_photo_by_photo() -> None:
    results = {
        "bgx (default)": quality.Result(seconds=[1.0, 2.0, 9.0]),
        "rembg -a": quality.Result(seconds=[10.0, 4.0, 30.0]),
    }

    assert quality.take_times("bgx (default)", results) == {"seconds": 2.0, "of -a": 0.3}
    del results["rembg -a"]
    assert quality.take_times("bgx (default)", results) == {"seconds": 2.0}


def test_record_has_every_mode_and_no_path_of_this_machine(
    photo_set: Path, file: ModelFile, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_8_bits(file, store)
    target = photo_set / "quality.json"
    folders = (photo_set / "masked", photo_set / "soft")

    benchmark(
        monkeypatch,
        *(*folders, "--model-file", file.path, "--bgx-home", store.folder),
        *("--scenes", "1", "--json", target),
    )

    text = target.read_text(encoding="utf-8")
    record = json.loads(text)
    assert str(photo_set) not in text
    hardware = {"cpu", "usable_cores", "instructions", "architecture", "system"}
    assert set(record["machine"]) == hardware
    assert record["settings"]["photos"] == {"masked": 2, "soft": 2, "scenes": 2, "shapes": 2}
    assert record["settings"]["modes"] == quality.OPTIONS
    for rows in record["summary"].values():
        assert list(rows) == list(quality.OPTIONS)
    assert "MAE" in record["summary"]["masked"]["bgx (default)"]
    assert "edge" in record["summary"]["soft"]["bgx (default)"]


def test_timing_photos_renews_the_times_alone(
    photo_set: Path, file: ModelFile, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = photo_set / "quality.json"
    asked = (photo_set / "soft", "--model-file", file.path, "--bgx-home", store.folder)
    benchmark(monkeypatch, *asked, "--scenes", "1", "--json", target)
    known = json.loads(target.read_text(encoding="utf-8"))
    for row in known["summary"]["soft"].values():
        row["seconds"] = -1.0
    target.write_text(json.dumps(known), encoding="utf-8")

    benchmark(monkeypatch, *asked, "--json", target, "--timing-photos", "1")

    renewed = json.loads(target.read_text(encoding="utf-8"))
    timing = renewed.pop("timing")
    assert (timing["photos"], timing["machine"]) == (1, known["machine"])
    for row in renewed["summary"]["soft"].values():
        assert row["seconds"] > 0
        row["seconds"] = -1.0
    assert renewed == known


def test_times_of_other_modes_are_refused() -> None:
    record: dict[str, Any] = {"summary": {"soft": {"rembg -a": {"seconds": 1.0}}}}
    before = copy.deepcopy(record)
    timed = {"bgx (default)": quality.Result(seconds=[1.0])}

    with pytest.raises(SystemExit, match="rembg -a; timed were bgx"):
        quality.renew_times(record, "soft", timed)
    with pytest.raises(SystemExit, match="no such folder"):
        quality.renew_times(record, "masked", timed)
    assert record == before


@pytest.mark.weights
def test_refined_mattes_beat_plain_ones_on_true_alpha(
    weights: Path, shared: Path, store: Store
) -> None:
    modes = quality.open_modes(store.resolve(str(weights), store.registry()), store)
    cases = quality.read_set(shared / "matting_dev")

    results = quality.cut_with_bgx([case.path for case in cases], modes)
    summary = quality.summarize(cases, results)

    plain, refined = summary[quality.PLAIN], summary[quality.DEFAULT]
    assert refined["edge"] < 0.91 * plain["edge"]
    assert refined["gradient"] < 0.84 * plain["gradient"]
    assert refined["max F"] > plain["max F"] - 0.001

"""The quality benchmark's measures, and that bgx does well by them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from bgx.image.foreground import restore_foreground

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


@pytest.mark.weights
def test_refined_mattes_beat_plain_ones_on_true_alpha(weights: Path, shared: Path) -> None:
    from bgx.model.session import open_session
    from bgx.model.store import Store
    from bgx.settings import DeviceSettings, ModelSettings

    store = Store(ModelSettings.from_environment(offline=True))
    file = store.resolve(str(weights), store.registry())
    session = open_session(file, DeviceSettings("cpu", precision="fp32"), store, pictures=1)
    cases = quality.read_set(shared / "matting_dev")

    results = quality.cut_with_bgx([case.path for case in cases], session)
    summary = quality.summarize(cases, results)

    plain, refined = summary["bgx plain"], summary["bgx refined"]
    assert refined["edge"] < 0.91 * plain["edge"]
    assert refined["gradient"] < 0.84 * plain["gradient"]
    assert refined["max F"] > plain["max F"] - 0.001

"""The benchmarks' own parts: generated photos, measuring programs, records, the comparison."""

from __future__ import annotations

import json
import os
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from bgx.model.opening import open_session
from bgx.model.registry import load_registry
from bgx.model.store import Store
from bgx.run.outcome import Done
from bgx.settings import DeviceSettings, ModelSettings
from support.networks import tiny_network, u2net_network
from support.running import make_job, run_all

if TYPE_CHECKING:
    from bgx.model.session import Session

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

# Benchmarks are scripts that import their neighbours: they run with their own folder on the path.
sys.path.insert(0, str(BENCHMARKS))
import encoders  # noqa: E402
import limit  # noqa: E402
import measure  # noqa: E402
import network  # noqa: E402
import photos  # noqa: E402
import serve  # noqa: E402
import stages  # noqa: E402
import threads  # noqa: E402
import vs_rembg  # noqa: E402


@pytest.mark.parametrize("seed", range(6))
def test_a_rendered_photo_has_a_subject_with_true_alpha(seed: int) -> None:
    photo, alpha = photos.render(200, 150, seed)

    assert (photo.mode, photo.size) == ("RGB", (200, 150))
    assert (alpha.mode, alpha.size) == ("L", (200, 150))
    values = np.asarray(alpha)
    assert 0.15 < values.mean() / 255 < 0.6
    assert {0, 255} <= set(np.unique(values).tolist())
    assert np.count_nonzero((values > 0) & (values < 255)) > 100


@pytest.mark.parametrize("seed", [3, 4])
def test_fur_before_the_body_does_not_let_the_background_through(seed: int) -> None:
    _, alpha = photos.render(400, 300, seed)

    values = np.asarray(alpha)
    middle = round(float(np.average(np.arange(400), weights=values.sum(axis=0))))
    assert (values[100:240, middle - 20 : middle + 20] == 255).all()


@pytest.mark.parametrize("seed", [1, 5])
def test_a_seed_is_one_photo(seed: int) -> None:
    first, again = photos.render(120, 90, seed), photos.render(120, 90, seed)
    other = photos.render(120, 90, seed + 6)

    assert first[0].tobytes() == again[0].tobytes()
    assert first[1].tobytes() == again[1].tobytes()
    assert first[0].tobytes() != other[0].tobytes()


@pytest.mark.parametrize("seed", [2, 3])
def test_a_seed_is_one_scene_whatever_the_size(seed: int) -> None:
    _, small = photos.render(200, 150, seed)
    _, large = photos.render(400, 300, seed)

    one, other = np.asarray(small) > 127, np.asarray(large.reduce(2)) > 127
    assert np.count_nonzero(one & other) > 0.9 * np.count_nonzero(one | other)


def test_upright_photos_are_drawn_too() -> None:
    photo, alpha = photos.render(75, 100, 3)

    assert photo.size == alpha.size == (75, 100)


def test_written_photos_are_equal_files_with_what_a_camera_adds(tmp_path: Path) -> None:
    first = photos.write(tmp_path / "a", (120, 90), 3, seed=4, metadata=True)
    again = photos.write(tmp_path / "b", (120, 90), 3, seed=4, metadata=True)

    assert [path.name for path in first] == ["photo-004.jpg", "photo-005.jpg", "photo-006.jpg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    with Image.open(first[0]) as photo:
        assert photo.size == (120, 90)
        assert photo.info["dpi"] == (300, 300)
        assert photo.info["icc_profile"]
        assert photo.getexif()[0x010F] == "bgx"


def test_photos_carry_no_metadata_unless_asked(tmp_path: Path) -> None:
    (path,) = photos.write(tmp_path, (120, 90), 1)

    with Image.open(path) as photo:
        assert "icc_profile" not in photo.info
        assert not photo.getexif()


def test_a_program_is_measured_with_what_it_said() -> None:
    code = "import os, sys; print(os.environ['WORD']); print('aside', file=sys.stderr)"
    child = measure.run([sys.executable, "-c", code], {**os.environ, "WORD": "hello"})

    assert child.stdout.strip() == "hello"
    assert child.stderr.strip() == "aside"
    assert child.usage.seconds > 0


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this platform does not tell peak memory")
def test_peak_memory_is_the_programs_own() -> None:
    ours = np.ones(300_000_000, np.uint8)  # must not be counted as the program's
    small = measure.run([sys.executable, "-c", "pass"]).usage
    large = measure.run([sys.executable, "-c", "bytearray(b'x') * 150_000_000"]).usage

    assert small.peak_bytes is not None
    assert large.peak_bytes is not None
    assert 1_000_000 < small.peak_bytes < 100_000_000 < ours.nbytes
    assert 150_000_000 <= large.peak_bytes - small.peak_bytes + 10_000_000 < 300_000_000


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this platform does not tell CPU time")
def test_cpu_time_is_the_programs_own() -> None:
    code = "import time; start = time.process_time()\nwhile time.process_time() < start + 0.2: pass"
    usage = measure.run([sys.executable, "-c", code]).usage

    assert usage.cpu_seconds is not None
    assert usage.cpu_seconds >= 0.2


def test_a_failing_program_is_an_error_with_its_last_words() -> None:
    with pytest.raises(measure.ChildError, match=r"exit 3\n.*no photos here"):
        measure.run(
            [
                sys.executable,
                "-c",
                "import sys; print('no photos here', file=sys.stderr); sys.exit(3)",
            ]
        )


def test_a_program_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(measure.ChildError, match="no-such-program"):
        measure.run(["no-such-program"])


def test_versions_are_those_of_the_environment() -> None:
    found = measure.versions(sys.executable, ["numpy", "no-such-package"])

    assert found == {"python": sys.version.split()[0], "numpy": np.__version__}


def _usage(seconds: float, peak: float) -> dict[str, float]:
    return {"seconds": seconds, "cpu_seconds": seconds, "peak_bytes": peak}


def _measurements() -> dict[str, Any]:
    sides = {
        "rembg": [_usage(80, 900e6), _usage(100, 900e6), _usage(60, 900e6)],
        "bgx": [_usage(10, 300e6), _usage(20, 300e6), _usage(6, 300e6)],
    }
    return {"batch": sides, "cold": sides, "help": sides, "matte_differences": [0.001, 0.003]}


def test_the_summary_pairs_each_round() -> None:
    summary = vs_rembg.summarize(_measurements(), 20)

    assert summary["seconds per photo"] == {"rembg": 4.0, "bgx": 0.5, "ratio": 8.0}
    assert summary["peak memory, MB"] == pytest.approx({"rembg": 900, "bgx": 300, "ratio": 3})
    assert summary["matte difference"] == {"mean": 0.002, "worst photo": 0.003}
    assert "8.00" in vs_rembg.describe(summary)


def test_a_server_is_compared_with_the_other_and_with_a_batch() -> None:
    def load(wall: float, statuses: dict[int, int]) -> serve.Load:
        return serve.Load(32, wall, [wall / 2] * 10, statuses, 600_000_000)

    rows = serve.summarize(
        {"rembg": [load(6, {200: 9, 500: 1})], "bgx": [load(2, {200: 10})]},
        {"bgx": [measure.Usage(1.8, None, None)]},
        count=10,
    )

    rembg, bgx = rows["32 at once"]["rembg"], rows["32 at once"]["bgx"]
    assert bgx["photos per second"] == 5
    assert bgx["times rembg"] == pytest.approx(3)
    assert bgx["times bgx batch"] == pytest.approx(0.9)
    assert (bgx["failed"], rembg["failed"]) == (0, 1)
    assert bgx["p95, s"] == 1
    assert "times rembg" not in rembg


def test_a_record_names_when_where_and_with_what(tmp_path: Path) -> None:
    measurements = _measurements()
    record = measure.make_record(
        "vs_rembg",
        settings={"rounds": 3},
        versions={"bgx": measure.versions()},
        measurements=measurements,
        summary=vs_rembg.summarize(measurements, 20),
    )
    measure.write_record(tmp_path / "record.json", record)

    kept = json.loads((tmp_path / "record.json").read_text())
    assert kept == record
    assert kept["benchmark"] == "vs_rembg"
    assert kept["machine"]["usable_cores"] >= 1
    assert kept["machine"]["cpu"]
    assert kept["versions"]["bgx"].keys() >= {"python", "numpy", "pillow"}
    assert kept["measurements"]["batch"]["rembg"][0]["seconds"] == 80
    assert kept["summary"]["seconds per photo"]["ratio"] == 8
    assert "numpy" in measure.describe_origin(kept)


def test_matte_differences_are_those_of_alpha_alone(tmp_path: Path) -> None:
    for name, colour, alpha in (("one", 10, 0), ("other", 200, 51)):
        folder = tmp_path / name
        folder.mkdir()
        Image.new("RGBA", (8, 6), (colour, colour, colour, alpha)).save(folder / "photo.png")

    assert vs_rembg.matte_differences(tmp_path / "one", tmp_path / "other") == [pytest.approx(0.2)]


class _Forgetful(vs_rembg.Tool):
    """Cuts the first photo of a folder and forgets the others."""

    def cut_folder(self, folder: Path, target: Path) -> measure.Usage:
        first = min(folder.iterdir())
        Image.new("RGBA", (8, 6)).save(target / f"{first.stem}.png")
        return measure.Usage(1.0, 1.0, 1)


def test_a_tool_that_leaves_photos_out_ends_the_comparison(tmp_path: Path) -> None:
    work = vs_rembg.Work.prepare(tmp_path, (40, 30), 2)
    tool = _Forgetful("forgetful", Path(sys.executable), {}, one=(), many=())

    with pytest.raises(SystemExit, match="forgetful left out photo-001"):
        work.cut_all(tool)


@pytest.fixture
def bgx(tmp_path: Path) -> vs_rembg.Tool:
    """bgx with a tiny network under the name of the benchmarks' own."""
    network = tiny_network(tmp_path / "tiny.onnx")
    return vs_rembg.bgx_tool(tmp_path / "home", network, ("--quiet",))


def test_bgx_is_measured_in_float32_unless_asked_otherwise(
    bgx: vs_rembg.Tool, tmp_path: Path
) -> None:
    in_8_bits = vs_rembg.bgx_tool(
        tmp_path / "other-home", tmp_path / "tiny.onnx", (), precision="int8"
    )

    for tool, precision in ((bgx, "fp32"), (in_8_bits, "int8")):
        for words in (tool.one, tool.many):
            assert words[words.index("--precision") + 1] == precision
    # There is no 8-bit copy in that home: bgx itself refuses to go on without it.
    (photo,) = photos.write(tmp_path / "photos", (40, 30), 1)
    with pytest.raises(measure.ChildError, match="bgx models optimize"):
        in_8_bits.cut_one(photo, tmp_path / "cut.png")


def test_the_8_bit_copy_is_made_in_the_benchmarks_home_on_photos_of_its_own(
    bgx: vs_rembg.Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[list[str], Any]] = []
    copy = tmp_path / "copy.onnx"
    copy.with_suffix(".json").write_text('{"difference": 0.001}')

    def optimize(command: Any, environment: Any) -> measure.Child:
        called.append(([str(word) for word in command], environment))
        return measure.Child(measure.Usage(1.0, 1.0, 1), f"{copy}  twice as fast\n", "")

    monkeypatch.setattr(measure, "run", optimize)
    monkeypatch.setattr(vs_rembg, "CALIBRATION_SIZE", (40, 30))

    assert vs_rembg.make_int8(bgx, tmp_path / "other", 2) == {"difference": 0.001}
    [(command, environment)] = called
    assert command[1:4] == ["models", "optimize", "u2netp"]
    assert command[command.index("--calibrate") + 1] == str(tmp_path / "other")
    assert environment["BGX_HOME"] == str(tmp_path / "home")
    drawn = {path.name for path in (tmp_path / "other").iterdir()}
    measured = {path.name for path in photos.write(tmp_path / "photos", (40, 30), 4)}
    assert len(drawn) == 4
    assert drawn.isdisjoint(measured)


def test_an_8_bit_copy_that_bgx_refuses_ends_the_comparison_in_its_words(
    bgx: vs_rembg.Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_too_few(folder: Path, *_: Any, seed: int) -> list[Path]:
        return write(folder, (40, 30), 2, seed=seed)

    write = photos.write
    monkeypatch.setattr(photos, "write", write_too_few)

    with pytest.raises(SystemExit, match=r"no 8-bit copy to measure: (?s:.*) at least 8 are"):
        vs_rembg.make_int8(bgx, tmp_path / "too-few", 4)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    file = store.resolve(str(tiny_network(tmp_path / "tiny.onnx")), load_registry())
    return open_session(file, DeviceSettings("cpu", threads=1), store)


def test_every_step_of_a_pictures_way_is_timed(session: Session, tmp_path: Path) -> None:
    (path,) = photos.write(tmp_path / "photos", (120, 90), 1, metadata=True)
    [outcome] = run_all([make_job(path, tmp_path / "engine.png")], session)
    assert isinstance(outcome, Done)

    taken = stages.walk(path, tmp_path / "steps.png", session)

    assert set(taken) == {*stages.STEPS, *stages.OPTIONAL}
    assert all(milliseconds > 0 for milliseconds in taken.values())
    assert (tmp_path / "steps.png").read_bytes() == (tmp_path / "engine.png").read_bytes()


def test_start_up_is_the_process_without_its_photos_steps(
    bgx: vs_rembg.Tool, session: Session, tmp_path: Path
) -> None:
    (path,) = photos.write(tmp_path / "photos", stages.TINY, 1)

    for _ in range(2):  # the second time over a result that is there already
        assert stages.start_up(bgx, path, tmp_path, session) > 0
        with Image.open(tmp_path / "tiny.png") as cut:
            assert cut.size == stages.TINY


def test_the_steps_are_medians_over_photos_and_rounds_and_shares_of_their_sum() -> None:
    def taken(milliseconds: float) -> dict[str, float]:
        return dict.fromkeys((*stages.STEPS, *stages.OPTIONAL), milliseconds)

    summary = stages.summarize([[taken(5), taken(1)], [taken(90), taken(3)]], [700, 100, 200])

    assert summary["one photo"] == pytest.approx(4 * len(stages.STEPS))
    assert list(summary["steps"]) == list(stages.STEPS)
    for row in (*summary["steps"].values(), *summary["optional"].values()):
        assert row == pytest.approx({"ms": 4, "share": 1 / len(stages.STEPS)})
    assert summary["start-up"] == 200
    table = stages.describe(summary)
    assert all(step in table for step in (*stages.STEPS, *stages.OPTIONAL, "start-up"))


def test_no_split_takes_more_cores_than_there_are() -> None:
    assert [(one.workers, one.threads) for one in threads.split_cores(2)] == [
        (1, 1),
        (1, 2),
        (2, 1),
    ]
    for cores in (1, 3, 4, 6, 64):
        splits = threads.split_cores(cores)
        assert max(one.workers * one.threads for one in splits) == cores
        assert {(1, 1), (1, cores), (cores, 1)} <= {(one.workers, one.threads) for one in splits}


def test_a_split_is_asked_for_in_both_commands(bgx: vs_rembg.Tool) -> None:
    tool = threads.Split(3, 2).ask(bgx)

    assert tool.many == (*bgx.many, "--threads", "2", "--workers", "3")
    assert tool.one == (*bgx.one, "--threads", "2")


def test_every_split_is_measured_once_a_round(bgx: vs_rembg.Tool, tmp_path: Path) -> None:
    work = vs_rembg.Work.prepare(tmp_path / "work", (40, 30), 2)

    measurements = threads.compare(bgx, work, cores=2, rounds=1)

    splits = {
        what: [(row["workers"], row["threads"]) for row in rows]
        for what, rows in measurements.items()
    }
    assert splits == {"batch": [(2, 1), (1, 1), (1, 2)], "one photo": [(1, 2), (1, 1)]}
    assert all(len(row["rounds"]) == 1 for rows in measurements.values() for row in rows)


def test_speeds_are_relative_to_bgxs_choice_of_the_same_round() -> None:
    def row(workers: int, number: int, *seconds: float) -> dict[str, Any]:
        usages = [_usage(taken, 300e6) for taken in seconds]
        return {"workers": workers, "threads": number, "rounds": usages}

    summary = threads.summarize(
        {
            "batch": [row(2, 1, 10, 20, 40), row(1, 2, 20, 40, 50)],
            "one photo": [row(1, 2, 1, 2, 3), row(1, 1, 2, 3, 6)],
        },
        count=40,
    )

    ours, other = summary["batch"]
    assert (ours["chosen"], ours["speed"], ours["photos per second"]) == (True, 1, 2)
    assert (other["chosen"], other["speed"], other["photos per second"]) == (False, 0.5, 1)
    assert [alone["threads"] for alone in summary["one photo"]] == [1, 2]
    assert [alone["seconds"] for alone in summary["one photo"]] == [3, 2]
    assert threads.describe(summary).count("chosen") == 2


def _pixels(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 4), np.uint8)


@pytest.mark.parametrize("library", encoders.LIBRARIES)
@pytest.mark.parametrize("filter_name", encoders.FILTERS)
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("height", [3, encoders.BLOCK, 3 * encoders.BLOCK + 1])
def test_an_encoder_is_bit_exact(library: str, filter_name: str, threads: int, height: int) -> None:
    pixels = _pixels(height, 7)
    filter_rows = encoders.FILTERS[filter_name]
    data = encoders.encode_png(pixels, filter_rows, library, threads=threads)

    assert encoders.opens_to(data, pixels)
    # Pillow may stop reading before the checksum of the zlib stream; zlib does not.
    stream = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]
    assert len(zlib.decompress(stream)) == height * (1 + 7 * 4)


def test_other_pixels_are_not_taken_for_exact() -> None:
    pixels = _pixels(4, 5)
    data = encoders.encode_png(pixels)
    pixels[2, 3, 1] ^= 1

    assert not encoders.opens_to(data, pixels)


def test_every_encoder_is_compared() -> None:
    compared = encoders.make_encoders((60, 45), seed=3, cores=2)
    results = encoders.compare(compared, repeats=1)

    assert [result.encoder for result in results] == [encoder.name for encoder in compared]
    assert all(result.exact for result in results)
    assert {result.threads for result in results} == {1, 2}
    kept, zeroed = (
        next(result for result in results if result.encoder == f"Pillow level 6, {colours}")
        for colours in ("colours kept", "zeroed")
    )
    assert zeroed.megabytes < kept.megabytes


def test_the_networks_arithmetic_is_counted(tmp_path: Path) -> None:
    path = u2net_network(tmp_path / "u2netp.onnx")

    assert limit.network_flops(path) == pytest.approx(39.5e9, rel=0.01)


def test_a_round_measures_every_floor() -> None:
    samples = [limit.Sample.draw((60, 45), seed) for seed in range(2)]
    calls: list[object] = []
    one = limit.measure_round(
        samples, {256: limit.matrix_product(256)}, calls.append, operations=10**6, cores=2
    )

    assert set(one["floors"]) == {*limit.STAGES, "network"}
    assert all(seconds > 0 for seconds in one["floors"].values())
    assert one["floors"]["network"] == pytest.approx(1e6 / one["peak_flops"])
    assert one["network_alone"] > 0
    assert calls


def test_a_samples_cut_out_has_no_colours_under_alpha_0() -> None:
    sample = limit.Sample.draw((60, 45), 3)

    transparent = sample.pixels[sample.pixels[:, :, 3] == 0]
    assert len(transparent) > 0
    assert not transparent.any()
    assert np.array_equal(sample.pixels[:, :, 3], np.asarray(sample.alpha))


def test_the_limits_ratios_are_taken_within_a_round() -> None:
    rounds = [
        {
            "floors": {"decode": 0.1 * load, "network": 0.3 * load},
            "peak_flops": 1e11 / load,
            "network_alone": 0.33 * load,
            "batch": 0.5 * load,
        }
        for load in (1, 10, 2)
    ]
    summary = limit.summarize(rounds)

    assert summary["limit"] == pytest.approx(0.8)
    assert summary["batch over limit"] == pytest.approx(1.25)
    assert summary["network alone over floor"] == pytest.approx(1.1)
    assert "1.25 x the limit" in limit.describe(summary)


def test_any_networks_file_is_measured_in_both(tmp_path: Path) -> None:
    file = tiny_network(tmp_path / "mine.onnx")
    theirs, ours = network.make_tools(file, "u2net", Path(sys.executable), tmp_path, ())
    assert Path(theirs.environment["U2NET_HOME"], "u2net.onnx").read_bytes() == file.read_bytes()
    [photo] = photos.write(tmp_path / "photos", (80, 60), 1)
    usage = ours.cut_one(photo, tmp_path / "cut.png")
    assert usage.seconds > 0
    with Image.open(tmp_path / "cut.png") as cut:
        assert cut.size == (80, 60)

"""A picture's way around a network, alone and beside others, and what goes wrong on it."""

from __future__ import annotations

import io
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bgx.errors import (
    BadModelError,
    BgxError,
    BugError,
    InferenceError,
    OutputError,
    TooLargeError,
    UnreadableError,
    UnwritableError,
    UsageError,
)
from bgx.model.engines import EnginePlan
from bgx.model.prepare import prepare
from bgx.model.registry import ModelEntry, load_registry
from bgx.model.session import Session
from bgx.run import batch as batch_room
from bgx.run import pipeline as pipeline_room
from bgx.run.batch import cut_all, process
from bgx.run.cutout import Cutout
from bgx.run.outcome import Done, Failed, Job, Outcome, Skipped
from bgx.run.pipeline import Network, Pipeline
from bgx.settings import OutputSettings, ReadSettings
from support.fakes import (
    SIZE,
    ConstantNetwork,
    CrashingNetwork,
    FakeNetwork,
    GatedNetwork,
    SmallMemoryNetwork,
    cpu_plan,
    draw_photo,
    gpu_plan,
    save_photo,
)
from support.networks import tiny_network
from support.pictures import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

PATIENCE = 60  # seconds until a test that hangs fails


def make_pipeline(network: Network, **output: Any) -> Pipeline:
    return Pipeline(network, ReadSettings(), OutputSettings(**output))


def run(
    jobs: Sequence[Job], network: Network, *, workers: int = 2, **output: Any
) -> dict[Job, Outcome]:
    """The outcome of each job; fails where a job has none or two."""
    return by_job(jobs, process(jobs, make_pipeline(network, **output), workers=workers))


def by_job(jobs: Sequence[Job], outcomes: Iterable[Outcome]) -> dict[Job, Outcome]:
    listed = list(outcomes)
    assert sorted(str(outcome.job) for outcome in listed) == sorted(str(job) for job in jobs)
    return {outcome.job: outcome for outcome in listed}


def make_jobs(folder: Path, subjects: Sequence[int]) -> list[Job]:
    """A job a photo; subjects: grey level of each photo's subject."""
    return [
        Job(
            save_photo(folder / f"in/{number}.png", subject=subject),
            folder / f"out/{number}.png",
        )
        for number, subject in enumerate(subjects)
    ]


def is_bright(picture: NDArray[np.float32]) -> bool:
    """Whether the subject is white."""
    return float(picture.max()) > 0.99


PLANS = [cpu_plan(), gpu_plan(4)]


# One outcome each ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A photo of each fate."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return {
        "good": save_photo(folder / "good.png", subject=200),
        "refused by the network": save_photo(folder / "bright.png", subject=255),
        "unreadable": folder / "broken.jpg",
        "gone": folder / "gone.jpg",
        "target is a folder": save_photo(folder / "fine.png", subject=200),
    }


EXPECTED = {
    "good": None,
    "refused by the network": InferenceError,
    "unreadable": UnreadableError,
    "gone": UnreadableError,
    "target is a folder": UnwritableError,
}


@settings(max_examples=40)
@given(
    fates=st.lists(st.sampled_from(sorted(EXPECTED)), max_size=9),
    batch_size=st.integers(1, 4),
    workers=st.integers(1, 3),
)
def test_every_job_has_its_outcome_whatever_happens_to_the_others(
    sources: dict[str, Path], fates: list[str], batch_size: int, workers: int
) -> None:
    plan = cpu_plan(workers) if batch_size == 1 else gpu_plan(batch_size)
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        jobs = []
        for number, fate in enumerate(fates):
            jobs.append(Job(sources[fate], out / f"{number}.png"))
            if fate == "target is a folder":
                (jobs[-1].target / "full").mkdir(parents=True)

        outcomes = run(jobs, CrashingNetwork(plan, refuse=is_bright), workers=workers)

        for job, fate in zip(jobs, fates, strict=True):
            outcome = outcomes[job]
            expected = EXPECTED[fate]
            if expected is None:
                assert isinstance(outcome, Done)
                with Image.open(job.target) as written:
                    assert written.mode == "RGBA"
            else:
                assert isinstance(outcome, Failed)
                assert type(outcome.error) is expected
                assert str(job.source if fate != "target is a folder" else job.target) in str(
                    outcome.error
                )
                assert not job.target.is_file()
        assert not list(out.glob(".*"))


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_what_was_there_stays_when_a_picture_fails(tmp_path: Path, plan: EnginePlan) -> None:
    [job] = make_jobs(tmp_path, [255])
    job.target.parent.mkdir()
    job.target.write_bytes(b"yesterday's")

    run([job], CrashingNetwork(plan))

    assert job.target.read_bytes() == b"yesterday's"


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_an_unexpected_error_is_a_bug_on_that_picture_alone(
    tmp_path: Path, plan: EnginePlan
) -> None:
    jobs = make_jobs(tmp_path, [200, 255, 200])
    network = CrashingNetwork(plan, refuse=is_bright, error=ZeroDivisionError("by zero"))

    outcomes = run(jobs, network)

    bug = outcomes[jobs[1]]
    assert [type(outcomes[job]) for job in jobs] == [Done, Failed, Done]
    assert isinstance(bug, Failed)
    assert isinstance(bug.error, BugError)
    assert str(bug.error).startswith(f"{jobs[1].source}: unexpected ZeroDivisionError('by zero')")
    assert isinstance(bug.error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_a_bug_beside_the_network_too(
    tmp_path: Path, plan: EnginePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = make_jobs(tmp_path, [200, 255])

    def multiply(*_: object) -> None:
        raise KeyError("compose")

    monkeypatch.setattr(pipeline_room, "multiply_alpha", multiply)

    for job, outcome in run(jobs, FakeNetwork(plan)).items():
        assert isinstance(outcome, Failed)
        assert isinstance(outcome.error, BugError)
        assert str(outcome.error).startswith(f"{job.source}: unexpected KeyError")


# Batches ------------------------------------------------------------------------------------------


def test_pictures_go_through_a_gpu_in_full_batches(tmp_path: Path) -> None:
    network = FakeNetwork(gpu_plan(4))

    run(make_jobs(tmp_path, [200] * 10), network, workers=3)

    assert network.batches == [4, 4, 2]


@pytest.mark.parametrize("error", [InferenceError("out of memory"), MemoryError()])
def test_a_batch_out_of_memory_is_done_one_by_one(tmp_path: Path, error: Exception) -> None:
    network = SmallMemoryNetwork(gpu_plan(4), error=error)
    jobs = make_jobs(tmp_path, [200] * 4)

    outcomes = run(jobs, network)

    assert network.batches == [4, 1, 1, 1, 1]
    assert all(isinstance(outcome, Done) for outcome in outcomes.values())


def test_in_a_failing_batch_only_the_culprit_fails(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [200, 255, 100, 200])

    outcomes = run(jobs, CrashingNetwork(gpu_plan(4), refuse=is_bright))

    assert [type(outcomes[job]) for job in jobs] == [Done, Failed, Done, Done]


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_too_little_memory_for_a_picture_is_said_of_it(tmp_path: Path, plan: EnginePlan) -> None:
    jobs = make_jobs(tmp_path, [200, 255])
    network = CrashingNetwork(plan, refuse=is_bright, error=MemoryError())

    outcomes = run(jobs, network)

    failed = outcomes[jobs[1]]
    assert isinstance(outcomes[jobs[0]], Done)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, TooLargeError)
    assert str(failed.error).startswith(f"{jobs[1].source}: not enough memory")


@given(st.lists(st.integers(0, 255), min_size=1, max_size=7), st.integers(2, 4))
@settings(max_examples=15)
def test_a_picture_in_a_batch_gets_the_matte_it_gets_alone(
    subjects: list[int], batch_size: int
) -> None:
    photos = [
        Image.new("RGB", (40 + number, 30), (subject, 255 - subject, 9))
        for number, subject in enumerate(subjects)
    ]
    together = cut_all(photos, make_pipeline(FakeNetwork(gpu_plan(batch_size))), workers=2)
    alone = make_pipeline(FakeNetwork(cpu_plan()))

    for photo, cutout in zip(photos, together, strict=True):
        assert isinstance(cutout, Cutout)
        assert cutout.matte.tobytes() == alone.cut(photo, "photo").matte.tobytes()


def open_tiny(path: Path, batch_size: int) -> Session:
    """A real session that takes batches as on a GPU, on the CPU."""
    plan = EnginePlan("cpu", (("CPUExecutionProvider", {}),), batch_size=batch_size)
    return Session(prepare(path), plan, load_registry()["u2netp"], name="tiny", output=0)


def test_onnxruntime_gives_a_picture_in_a_batch_the_matte_it_gets_alone(tmp_path: Path) -> None:
    path = tiny_network(tmp_path / "tiny.onnx")
    photos = [draw_photo((90, 60), 255), draw_photo((50, 99), 150), draw_photo((64, 64), 90)]
    alone = make_pipeline(open_tiny(path, 1))

    together = cut_all(photos, make_pipeline(open_tiny(path, 4)), workers=2)

    for photo, cutout in zip(photos, together, strict=True):
        assert isinstance(cutout, Cutout)
        expected = np.asarray(alone.cut(photo, "photo").matte, np.int16)
        assert np.ptp(expected) > 100
        assert np.abs(np.asarray(cutout.matte, np.int16) - expected).max() <= 1


# The end of a run ---------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_a_run_wide_error_ends_the_run_with_every_job_accounted_for(
    tmp_path: Path, plan: EnginePlan
) -> None:
    jobs = make_jobs(tmp_path, [255] * 40)
    outcomes: list[Outcome] = []

    with pytest.raises(BadModelError, match="not one matte"):
        outcomes.extend(
            process(
                jobs,
                make_pipeline(CrashingNetwork(plan, error=BadModelError("not one matte"))),
                workers=2,
            )
        )

    by_job(jobs, outcomes)
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    skipped = [outcome for outcome in outcomes if isinstance(outcome, Skipped)]
    assert 1 <= len(failed) <= 12
    assert len(failed) + len(skipped) == len(jobs)
    assert {outcome.reason for outcome in skipped} == {"stopped"}


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_an_output_folder_that_is_a_file_ends_the_run(tmp_path: Path, plan: EnginePlan) -> None:
    jobs = make_jobs(tmp_path, [255] * 40)
    (tmp_path / "out").write_bytes(b"")
    jobs = [Job(job.source, job.target.parent / "sub" / job.target.name) for job in jobs]
    outcomes: list[Outcome] = []

    with pytest.raises(OutputError):
        outcomes.extend(process(jobs, make_pipeline(FakeNetwork(plan)), workers=2))

    by_job(jobs, outcomes)
    assert sum(isinstance(outcome, Skipped) for outcome in outcomes) > 20


@pytest.mark.parametrize("plan", PLANS, ids=["cpu", "gpu"])
def test_after_a_stop_what_is_in_work_is_written_and_the_rest_is_skipped(
    tmp_path: Path, plan: EnginePlan
) -> None:
    jobs = make_jobs(tmp_path, [255] * 40)
    network = GatedNetwork(plan)
    stop = threading.Event()

    def interrupt() -> None:
        assert network.started.acquire(timeout=PATIENCE)
        stop.set()
        network.gate.set()

    user = threading.Thread(target=interrupt)
    user.start()
    outcomes = by_job(jobs, process(jobs, make_pipeline(network), workers=2, stop=stop))
    user.join()

    done = [job for job, outcome in outcomes.items() if isinstance(outcome, Done)]
    skipped = [outcome for outcome in outcomes.values() if isinstance(outcome, Skipped)]
    assert 1 <= len(done) <= 12
    assert len(done) + len(skipped) == len(jobs)
    assert {outcome.reason for outcome in skipped} == {"interrupted"}
    assert sorted((tmp_path / "out").iterdir()) == sorted(job.target for job in done)


def test_a_run_stopped_before_it_begins_does_nothing(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [255] * 3)
    stop = threading.Event()
    stop.set()

    outcomes = list(process(jobs, make_pipeline(FakeNetwork()), workers=2, stop=stop))

    assert outcomes == [Skipped(job, "interrupted") for job in jobs]


def test_nothing_to_do_is_nothing_done() -> None:
    assert list(process([], make_pipeline(FakeNetwork()), workers=2)) == []


@dataclass
class CountingNetwork(FakeNetwork):
    """Counts runs at once, of which each gives a second one the time to begin."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    second: threading.Event = field(default_factory=threading.Event)
    now: int = 0
    most: int = 0

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.now > 1:
                self.second.set()
        self.second.wait(0.1)
        mattes = super().run(batch)
        with self.lock:
            self.now -= 1
        return mattes


def test_photos_that_fill_the_memory_are_done_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_room, "_PIXELS_PER_WORKER", 48 * 36 // 4)
    network = CountingNetwork(cpu_plan(4))

    run(make_jobs(tmp_path, [255] * 5), network, workers=4)

    assert network.most == 1


def test_workers() -> None:
    assert cpu_plan(3).count_workers(None, cores=8) == 3
    assert gpu_plan().count_workers(None, cores=8) == 8
    assert cpu_plan(3).count_workers(5, cores=8) == 5


# In order -----------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), max_size=9), st.integers(1, 4))
@settings(max_examples=25)
def test_cut_outs_come_in_order_with_errors_in_their_places(
    good: list[bool], batch_size: int
) -> None:
    plan = cpu_plan() if batch_size == 1 else gpu_plan(batch_size)
    pictures = [
        Image.new("RGB", (20 + number, 20), "white") if is_good else b"no picture"
        for number, is_good in enumerate(good)
    ]

    results = list(cut_all(iter(pictures), make_pipeline(FakeNetwork(plan)), workers=3))

    assert len(results) == len(pictures)
    for number, (is_good, result) in enumerate(zip(good, results, strict=True)):
        if is_good:
            assert isinstance(result, Cutout)
            assert result.image.width == 20 + number
        else:
            assert isinstance(result, UnreadableError)


def test_pictures_are_taken_only_as_far_ahead_as_fits() -> None:
    taken = 0

    def photos() -> Any:
        nonlocal taken
        for _ in range(50):
            taken += 1
            yield Image.new("RGB", (20, 20))

    results = cut_all(photos(), make_pipeline(FakeNetwork()), workers=2)
    next(results)

    assert taken <= 5
    assert sum(1 for _ in results) == 49


# One picture --------------------------------------------------------------------------------------


def cut(photo: Image.Image, network: Network | None = None, **output: Any) -> Cutout:
    return make_pipeline(network or FakeNetwork(), **output).cut(photo, "photo.jpg")


@pytest.fixture
def photo() -> Image.Image:
    """White subject in the middle half, black around it."""
    image = Image.new("RGB", (96, 64), "black")
    image.paste("white", (24, 16, 72, 48))
    return image


def test_a_cut_out_has_alpha_and_the_photos_size(photo: Image.Image) -> None:
    cutout = cut(photo)

    assert (cutout.image.mode, cutout.image.size) == ("RGBA", photo.size)
    assert (cutout.matte.mode, cutout.matte.size) == ("L", photo.size)
    assert cutout.image.getpixel((48, 32)) == (255, 255, 255, 255)
    assert cutout.image.getpixel((2, 2)) == (0, 0, 0, 0)


def test_what_a_cut_out_came_to(photo: Image.Image) -> None:
    measured = cut(photo).measured

    assert (measured.width, measured.height) == photo.size
    assert measured.coverage == pytest.approx(0.25, abs=0.03)
    assert measured.bbox is not None
    assert measured.bbox == pytest.approx((24, 16, 72, 48), abs=3)
    assert set(measured.seconds) == {"read", "infer", "compose"}
    assert all(seconds >= 0 for seconds in measured.seconds.values())


def test_no_subject_is_no_box(photo: Image.Image) -> None:
    measured = cut(photo, ConstantNetwork(value=0.0)).measured

    assert (measured.coverage, measured.bbox) == (0.0, None)


def test_the_photo_handed_in_is_not_changed(photo: Image.Image) -> None:
    before = photo.tobytes()

    cut(photo)

    assert (photo.mode, photo.tobytes()) == ("RGB", before)


def test_the_mask_of_a_jpeg_is_the_cutouts_alpha(photo: Image.Image) -> None:
    large = encode(photo.resize((1920, 1280)), "JPEG", quality=95)
    mask = cut(large, mask_only=True).image
    alpha = cut(large).image.getchannel("A")
    assert mask.size == alpha.size
    assert np.abs(np.asarray(mask).astype(int) - np.asarray(alpha)).mean() <= 0.5


def test_the_mask_alone(photo: Image.Image) -> None:
    cutout = cut(photo, mask_only=True)

    assert cutout.image.mode == "L"
    assert cutout.image.getpixel((48, 32)) == 255


def test_a_background_is_exact_where_there_is_no_subject(photo: Image.Image) -> None:
    cutout = cut(photo, background=(12, 34, 56))

    assert cutout.image.mode == "RGB"
    assert cutout.image.getpixel((2, 2)) == (12, 34, 56)


def test_jpeg_goes_on_white(photo: Image.Image) -> None:
    assert cut(photo, format="jpg").image.getpixel((2, 2)) == (255, 255, 255)


def test_the_first_frame_is_noted() -> None:
    stream = io.BytesIO()
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("white", "black")]
    frames[0].save(stream, format="GIF", save_all=True, append_images=frames[1:])

    cutout = make_pipeline(FakeNetwork()).cut(stream.getvalue(), "a.gif")

    assert cutout.measured.notes == ("first frame of several",)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tiff", ".avif"])
def test_saving_keeps_alpha(tmp_path: Path, photo: Image.Image, suffix: str) -> None:
    target = tmp_path / f"new/cut{suffix}"

    cut(photo).save(target)

    with Image.open(target) as saved:
        assert (saved.mode, saved.size) == ("RGBA", photo.size)


def test_saving_as_jpeg_goes_on_white_and_leaves_the_cut_out(
    tmp_path: Path, photo: Image.Image
) -> None:
    cutout = cut(photo)

    cutout.save(tmp_path / "cut.jpg")

    with Image.open(tmp_path / "cut.jpg") as saved:
        assert saved.mode == "RGB"
        assert saved.getpixel((2, 2)) == (255, 255, 255)
    assert cutout.image.mode == "RGBA"


def test_saving_needs_a_suffix_that_names_a_format(tmp_path: Path, photo: Image.Image) -> None:
    with pytest.raises(UsageError, match=r"cut\.gif: unknown suffix"):
        cut(photo).save(tmp_path / "cut.gif")


def test_profile_and_resolution_are_in_the_file(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    source = tmp_path / "in.jpg"
    Image.new("RGB", (40, 40), "white").save(source, icc_profile=profile, dpi=(300, 300))
    job = Job(source, tmp_path / "out.png")

    run([job], FakeNetwork())

    with Image.open(job.target) as saved:
        assert saved.info["icc_profile"] == profile
        assert saved.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def test_seconds_of_a_written_picture_name_every_step(tmp_path: Path) -> None:
    [job] = make_jobs(tmp_path, [255])

    outcome = run([job], FakeNetwork())[job]

    assert isinstance(outcome, Done)
    assert set(outcome.measured.seconds) == {"read", "infer", "compose", "write"}


@pytest.mark.parametrize(
    ("error", "expected"),
    [(InferenceError("crashed"), InferenceError), (MemoryError(), TooLargeError)],
)
def test_an_error_names_the_picture(
    photo: Image.Image, error: Exception, expected: type[BgxError]
) -> None:
    with pytest.raises(expected, match=r"^photo\.jpg: "):
        cut(photo, CrashingNetwork(error=error))


@pytest.mark.parametrize("stretch", [True, False])
def test_a_matte_is_stretched_where_the_registry_says_so(photo: Image.Image, stretch: bool) -> None:
    entry = ModelEntry(
        "half", (SIZE, SIZE), mean=(0, 0, 0), std=(2, 2, 2), scale=255.0, stretch=stretch
    )

    matte = cut(photo, FakeNetwork(entry=entry)).matte

    assert matte.getpixel((48, 32)) == (255 if stretch else 127)

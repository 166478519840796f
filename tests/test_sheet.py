"""The contact sheet and the review folder: what a person looks at after a batch."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bgx.api import Remover
from bgx.errors import BgxError, DeviceError, ExitCode, OutputError, UnreadableError
from bgx.image import preview
from bgx.image.preview import GAP, PREVIEW_SIZE, SIDE, draw_preview, encode_preview
from bgx.image.trust import DOUBTFUL, Trust
from bgx.run.batch import run_batch
from bgx.run.cutout import Measured
from bgx.run.outcome import Done, Failed, Job, Outcome, Skipped
from bgx.run.sheet import Sheet
from bgx.storage import open_file
from support.fakes import CrashingNetwork, FakeNetwork, draw_photo, save_photo
from support.pictures import encode
from support.running import (
    by_job,
    make_engine,
    make_job,
    make_recipe,
    run_all,
    source_of,
    target_of,
)
from support.shell import bgx, read_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bgx.storage.base import File

BLACK = Image.new("RGB", (8, 8))
CLEAR = Image.new("RGBA", (8, 8))


def measured(confidence: float, **trust: Any) -> Measured:
    figures = {"touches_border": (), "fill": 0.5, "subjects": 1} | trust
    return Measured(8, 8, 0.5, (0, 0, 4, 4), Trust(confidence, **figures))


def done(
    source: Path | str,
    target: Path | str,
    what: Measured,
    before: Image.Image = BLACK,
    after: Image.Image = CLEAR,
) -> Done:
    job = Job(open_file(source), open_file(target))
    return Done(job, what, preview=encode_preview(before, after))


def open_sheet(path: Path, **options: Any) -> Sheet:
    return Sheet(open_file(path), **options)


# Previews -----------------------------------------------------------------------------------------


@given(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.sampled_from(["RGBA", "RGB", "L"]),
)
def test_previews_of_any_two_pictures_have_one_size(
    before: tuple[int, int], after: tuple[int, int], mode: str
) -> None:
    drawn = draw_preview(Image.new("RGB", before), Image.new(mode, after))

    assert (drawn.mode, drawn.size) == ("RGB", PREVIEW_SIZE)


def test_a_preview_shows_both_pictures_whole() -> None:
    after = Image.new("RGBA", (900, 600), (0, 0, 255, 255))
    after.paste((0, 0, 0, 0), (0, 0, 450, 600))
    drawn = draw_preview(Image.new("RGB", (600, 900), (255, 0, 0)), after)

    assert drawn.getpixel((SIDE // 2, SIDE // 2)) == (255, 0, 0)
    assert drawn.getpixel((SIDE // 2, 0)) == (255, 0, 0)
    assert drawn.getpixel((2, SIDE // 2)) == preview.PAPER
    right = SIDE + GAP
    assert drawn.getpixel((right + SIDE * 3 // 4, SIDE // 2)) == (0, 0, 255)
    assert drawn.getpixel((right + SIDE // 4, 2)) == preview.PAPER
    squares = drawn.crop((right + 8, SIDE // 2 - 16, right + 40, SIDE // 2 + 16)).getcolors()
    assert squares is not None
    assert {colour for _, colour in squares} == {(255, 255, 255), (204, 204, 204)}


def test_what_is_hidden_under_transparency_stays_hidden() -> None:
    after = Image.new("RGBA", (1000, 1000), (255, 0, 0, 0))
    after.paste((0, 255, 0, 255), (0, 0, 505, 1000))
    drawn = np.asarray(draw_preview(BLACK, after)).astype(int)

    assert (drawn[..., 0] <= drawn[..., 1]).all()


def test_small_pictures_are_not_enlarged() -> None:
    drawn = draw_preview(Image.new("RGB", (10, 10)), Image.new("RGB", (10, 10)))
    dark = np.argwhere(np.asarray(drawn).max(axis=2) == 0)

    assert len(dark) == 2 * 10 * 10


def test_previews_are_drawn_without_changing_the_pictures() -> None:
    before, after = Image.new("RGB", (500, 400), "red"), Image.new("RGBA", (500, 400), (9, 9, 9, 9))
    copies = before.copy(), after.copy()
    draw_preview(before, after)

    assert (before, after) == copies


# Pages --------------------------------------------------------------------------------------------


@dataclass
class Page(HTMLParser):
    """What a browser makes of a page. text: by heading, the captions below it."""

    tags: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)
    title: str = ""
    _within: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        assert not any(name.startswith("on") for name in values)
        if tag == "a":
            self.links.append(values["href"] or "")
        if tag == "img":
            assert values["loading"] == "lazy"
            self.images.append(values["src"] or "")
        if tag == "figcaption":
            self.sections[next(reversed(self.sections))].append("")
        if tag not in {"meta", "img", "br"}:
            self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._within.pop() == tag

    def handle_data(self, data: str) -> None:
        if "h2" in self._within:
            self.sections[data] = []
        elif "figcaption" in self._within:
            self.sections[next(reversed(self.sections))][-1] += data
        elif "h1" in self._within:
            self.title = data


def read_page(path: Path) -> Page:
    page = Page()
    text = path.read_text(encoding="utf-8")
    page.feed(text.replace('<html lang="en">', ""))  # HTML lets its end tag be left out
    page.close()
    return page


def test_a_page_shows_the_doubtful_ones_first(tmp_path: Path) -> None:
    sheet = open_sheet(tmp_path / "sheet.html")
    for confidence in (0.95, 0.2, 0.99, 0.7):
        name = str(tmp_path / str(confidence))
        sheet.add(done(f"{name}.jpg", f"{name}.png", measured(confidence)))
    sheet.write()
    page = read_page(tmp_path / "sheet.html")

    assert page.title == "2 of 4 doubtful"
    order = [
        [caption.split(".jpg")[0][-4:].strip("/\\") for caption in captions]
        for captions in page.sections.values()
    ]
    assert list(page.sections) == ["Doubtful", "Others"]
    assert order == [["0.2", "0.7"], ["0.95", "0.99"]]


@pytest.mark.parametrize("room", [2, 10])
def test_a_damaged_photo_is_doubtful_at_any_confidence(tmp_path: Path, room: int) -> None:
    sheet = open_sheet(tmp_path / "sheet.html", room=room)
    sheet.add(done("damaged.jpg", "a.png", measured(0.99, damaged=True)))
    for confidence in (0.95, 0.2, 0.93):
        sheet.add(done(f"{confidence}.jpg", "b.png", measured(confidence)))
    sheet.write()
    page = read_page(tmp_path / "sheet.html")

    assert page.title == "2 of 4 doubtful"
    assert [caption.split(".jpg")[0] for caption in page.sections["Doubtful"]] == ["0.2", "damaged"]


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    sheet = open_sheet(tmp_path / "sheet.html")
    sheet.add(done("a.jpg", "a.png", measured(0.5)))
    sheet.write()
    page = read_page(tmp_path / "sheet.html")

    assert page.images
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.images)
    assert not page.tags & {"script", "link", "iframe", "object", "embed"}
    assert b"default-src 'none'" in (tmp_path / "sheet.html").read_bytes()


@pytest.mark.parametrize(
    ("trust", "expected"),
    [
        ({}, "confidence 0.50 \u00b7 fill 50%"),
        ({"touches_border": ("left", "top")}, "touches left, top"),
        ({"subjects": 3}, "3 subjects"),
        ({"subjects": 0}, "no subject"),
    ],
)
def test_a_caption_says_what_was_measured(
    tmp_path: Path, trust: dict[str, Any], expected: str
) -> None:
    sheet = open_sheet(tmp_path / "sheet.html")
    sheet.add(done("a.jpg", "a.png", measured(0.5, **trust)))
    sheet.write()
    [caption] = read_page(tmp_path / "sheet.html").sections["Doubtful"]

    assert expected in caption


_HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a&amp;b 100%20 #1?x=y",
    "javascript:alert(1)",
    "{braces} %s \\",
    "\u30d5\u30a1\u30a4\u30eb \u202egnp.exe",
    "two\nlines\tand\x1b[31m",
    "no text \udce9\udcff",
]


@pytest.mark.parametrize("name", _HOSTILE, ids=ascii)
def test_names_are_shown_and_never_obeyed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out" / "put"
    given = tmp_path / name.replace("/", "-"), folder / name.replace("/", "-")
    sheet = open_sheet(tmp_path / "sheets" / "sheet.html")
    sheet.add(done(*given, measured(0.5)))
    sheet.write()
    page = read_page(tmp_path / "sheets" / "sheet.html")

    assert not page.tags & {"script"}
    assert len(page.images) == 1
    target, source = (
        Path(os.path.normpath(tmp_path / "sheets" / os.fsdecode(unquote_bytes(link))))
        for link in page.links
    )
    assert (source, target) == given
    [caption] = page.sections["Doubtful"]
    assert caption.isprintable()
    if given[0].name.isprintable():
        assert given[0].name in caption


def unquote_bytes(link: str) -> bytes:
    assert not link.partition("/")[0].count(":")
    return unquote(link, encoding="utf-8", errors="surrogateescape").encode(
        "utf-8", "surrogateescape"
    )


@pytest.mark.parametrize("name", ["sheet.html", "sheet.jpg"])
def test_a_full_sheet_keeps_the_least_certain(tmp_path: Path, name: str) -> None:
    sheet = open_sheet(tmp_path / name, room=2)
    for number in (5, 3, 9, 1, 7, 2):
        image = Image.new("RGB", (300, 300), (0, 0, 25 * number))
        sheet.add(done(f"{number}.jpg", f"{number}.png", measured(number / 10), after=image))
    sheet.write()

    if name.endswith(".html"):
        page = read_page(tmp_path / name)
        assert page.title == "5 of 6 doubtful"
        assert [caption[:5] for caption in page.sections["Doubtful"]] == ["1.jpg", "2.jpg"]
        assert "the 2 least certain" in (tmp_path / name).read_text()


@pytest.mark.parametrize("name", ["sheet.html", "sheet.jpg"])
def test_failed_pictures_are_on_the_sheet(tmp_path: Path, name: str) -> None:
    sheet = open_sheet(tmp_path / name)
    sheet.write(finished=False)
    empty = (tmp_path / name).read_bytes()
    sheet.add(Failed(make_job(Path("b<.jpg"), Path("b.png")), UnreadableError("b<.jpg: is empty")))
    sheet.write()

    if name.endswith(".html"):
        assert read_page(tmp_path / name).title == "0 of 0 doubtful, 1 failed"
        assert "<li>b&lt;.jpg: is empty</li>" in (tmp_path / name).read_text()
    else:
        assert (tmp_path / name).read_bytes() != empty


def test_a_jpeg_sheet_shows_the_least_certain_at_its_top_left(tmp_path: Path) -> None:
    sheet = open_sheet(tmp_path / "sheet.jpg")
    colours = {0.2: (200, 0, 0), 0.5: (0, 200, 0), 0.95: (0, 0, 200)}
    for confidence in (0.5, 0.95, 0.2):
        image = Image.new("RGB", (300, 300), colours[confidence])
        name = f"{confidence}\n\udce9.jpg"
        sheet.add(done(name, "a.png", measured(confidence), image, image))
    sheet.write()
    with Image.open(tmp_path / "sheet.jpg") as picture:
        assert picture.format == "JPEG"
        pixels = np.asarray(picture).astype(int)
    centres = []
    for colour in (colours[0.2], colours[0.5], colours[0.95]):
        found = np.argwhere(np.abs(pixels - colour).max(axis=2) < 8)
        assert len(found) > SIDE * SIDE
        centres.append(found.mean(axis=0)[1])

    assert centres == sorted(centres)


@pytest.mark.parametrize("name", ["sheet.html", "sheet.jpg"])
def test_a_sheet_without_pictures_is_a_file_all_the_same(tmp_path: Path, name: str) -> None:
    open_sheet(tmp_path / name).write(finished=False)

    if name.endswith(".html"):
        assert read_page(tmp_path / name).title == "0 of 0 doubtful"
        assert "not finished" in (tmp_path / name).read_text()
    else:
        with Image.open(tmp_path / name) as picture:
            picture.load()


# A run --------------------------------------------------------------------------------------------

SURE, UNSURE = 255, 140
"""Grey levels of a subject that the fake network is sure and not so sure of."""


def make_jobs(folder: Path, subjects: Sequence[int]) -> list[Job]:
    return [
        make_job(
            save_photo(folder / f"in/{number}.png", size=(96, 96), subject=subject),
            folder / f"out/{number}.png",
            folder / f"review/{number}.png",
        )
        for number, subject in enumerate(subjects)
    ]


def run_with_sheet(jobs: Sequence[Job], path: Path) -> tuple[list[Outcome], BgxError | None]:
    """All outcomes, and how the run ended."""
    engine = make_engine(FakeNetwork(), workers=1)
    outcomes = []
    try:
        for outcome in run_batch([jobs], make_recipe(preview=True), engine, sheet=open_sheet(path)):
            outcomes.append(outcome)
    except BgxError as error:
        return outcomes, error
    return outcomes, None


def test_an_error_of_the_run_counts_more_than_one_of_its_sheet(tmp_path: Path) -> None:
    engine = make_engine(CrashingNetwork(error=DeviceError("the device is lost")), workers=1)
    path = tmp_path / "sheet.html"
    jobs = make_jobs(tmp_path, [SURE])

    run = run_batch([jobs], make_recipe(preview=True), engine, sheet=open_sheet(path))
    assert isinstance(next(run), Failed)
    path.unlink()
    path.mkdir()  # so that it cannot be written at the end
    with pytest.raises(DeviceError, match="the device is lost"):
        next(run)


def test_a_doubtful_result_is_written_twice(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [SURE, UNSURE])
    outcomes = by_job(jobs, run_all(jobs, FakeNetwork()))
    sure, unsure = (outcomes[job] for job in jobs)

    assert isinstance(sure, Done)
    assert isinstance(unsure, Done)
    assert (sure.measured.trust.doubtful, unsure.measured.trust.doubtful) == (False, True)
    assert not (tmp_path / "review" / "0.png").exists()
    copy = tmp_path / "review" / "1.png"
    assert copy.read_bytes() == target_of(jobs[1]).read_bytes()


@dataclass(frozen=True)
class Recorded:
    """A target that tells when it is written."""

    name: str
    written: list[str]
    error: BgxError | None = None

    def __str__(self) -> str:
        return self.name

    def link(self, page: File) -> str:
        return ""

    def write(self, *pieces: bytes, create: bool = False) -> bool:
        if self.error:
            raise self.error
        self.written.append(self.name)
        return True

    def is_there(self) -> bool:
        return False


def test_no_target_is_there_before_its_copy(tmp_path: Path) -> None:
    # A run that is killed between the two would otherwise never make the copy.
    written: list[str] = []
    [job] = make_jobs(tmp_path, [UNSURE])
    job = job._replace(target=Recorded("target", written), review=Recorded("copy", written))
    list(run_all([job], FakeNetwork()))

    assert written == ["copy", "target"]


def test_the_sheet_of_a_run_has_what_was_done(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [SURE, UNSURE, SURE])
    source_of(jobs[2]).write_bytes(b"no picture")
    run_with_sheet(jobs, tmp_path / "sheet.html")
    page = read_page(tmp_path / "sheet.html")

    assert page.title == "1 of 2 doubtful, 1 failed"
    assert {name: len(captions) for name, captions in page.sections.items()} == {
        "Failed": 0,
        "Doubtful": 1,
        "Others": 1,
    }
    links = [tmp_path / unquote(link) for link in page.links]
    shown = (jobs[1], jobs[0])
    assert links == [path for job in shown for path in (target_of(job), source_of(job))]


def test_a_sheet_that_cannot_be_written_stops_the_run_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    jobs = make_jobs(tmp_path, [SURE, SURE])
    outcomes, error = run_with_sheet(jobs, tmp_path / "file" / "sheet.html")

    assert isinstance(error, OutputError)
    assert outcomes == [Skipped(job, "stopped") for job in jobs]
    assert not (tmp_path / "out").exists()


def test_a_run_that_ends_early_has_its_sheet(tmp_path: Path) -> None:
    jobs = make_jobs(tmp_path, [SURE] * 4)
    full = Recorded("full", [], OutputError("full: the disk is full"))
    jobs[1] = jobs[1]._replace(target=full)
    outcomes, error = run_with_sheet(jobs, tmp_path / "sheet.html")

    assert isinstance(error, OutputError)
    count = sum(isinstance(outcome, Done) for outcome in outcomes)
    assert read_page(tmp_path / "sheet.html").title == f"0 of {count} doubtful, 1 failed"


# The command line ---------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stocked_home: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    save_photo(Path("photos/sure.png"), size=(96, 96), subject=255)
    unsure = draw_photo((96, 96), subject=128)
    unsure.putpixel((48, 48), (255, 255, 255))  # the network's white, beside which grey is half
    Path("photos/sub").mkdir()
    unsure.save("photos/sub/unsure.png")
    return tmp_path


def test_a_batch_with_review_and_sheet(photos: Path) -> None:
    arguments = ("--review", "look", "--sheet", "new/sheet.html", "--report", "report.jsonl")
    result = bgx("batch", "photos", "-o", "cut", *arguments)

    assert result.code == ExitCode.OK
    assert "2 done (1 doubtful)" in result.err
    assert read_rows(Path("report.jsonl"))[-1]["doubtful"] == 1
    copies = [path for path in Path("look").rglob("*") if path.is_file()]
    assert copies == [Path("look/sub/unsure.png")]
    assert copies[0].read_bytes() == Path("cut/sub/unsure.png").read_bytes()
    page = read_page(Path("new/sheet.html"))
    assert page.sections["Doubtful"][0].startswith(str(Path("photos/sub/unsure.png")))
    assert all((Path("new") / unquote(link)).is_file() for link in page.links)


def test_a_damaged_photo_is_looked_at_again(photos: Path) -> None:
    image = draw_photo((640, 960))
    image.paste(Image.effect_noise((640, 200), 4).point(lambda v: v - 120), (0, 760))
    whole = encode(image, "JPEG", quality=100)
    Path("photos/torn.jpg").write_bytes(whole[: int(len(whole) * 0.95)])

    result = bgx("batch", "photos/torn.jpg", "-o", "cut", "--review", "look", "--report", "-")

    [row, last] = result.rows
    assert (row["status"], row["doubtful"], last["doubtful"]) == ("done", True, 1)
    assert row["confidence"] > DOUBTFUL
    assert row["notes"] == ["damaged: the picture's last rows are missing"]
    assert Path("look/torn.png").read_bytes() == Path("cut/torn.png").read_bytes()


def test_the_library_writes_what_the_command_line_writes(photos: Path) -> None:
    bgx("batch", "photos", "-o", "cut", "--review", "look", "--sheet", "theirs.html")
    made = Remover("u2netp").batch(
        ["photos"], "cut", existing="overwrite", review="ours", sheet="ours.html"
    )
    doubtful = [outcome.measured.trust.doubtful for outcome in made if isinstance(outcome, Done)]

    assert sorted(doubtful) == [False, True]
    assert Path("ours.html").read_bytes() == Path("theirs.html").read_bytes()
    assert Path("ours/sub/unsure.png").read_bytes() == Path("look/sub/unsure.png").read_bytes()


@pytest.mark.parametrize("fonts", [(), ("no such font.ttf",)])
def test_a_system_without_fonts_has_a_sheet_too(
    photos: Path, fonts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bgx.run.sheet.FONTS", fonts)
    assert bgx("batch", "photos", "-o", "cut", "--sheet", "sheet.jpg").code == ExitCode.OK
    assert Path("sheet.jpg").stat().st_size > 1000


def test_a_run_with_nothing_to_do_leaves_the_sheet(photos: Path) -> None:
    bgx("batch", "photos", "-o", "cut", "--sheet", "sheet.html")
    before = Path("sheet.html").read_bytes()
    result = bgx("batch", "photos", "-o", "cut", "--sheet", "sheet.html")

    assert "2 skipped" in result.err
    assert Path("sheet.html").read_bytes() == before


@pytest.mark.parametrize("name", ["sheet.html", "sheet.jpg"])
def test_a_run_whose_only_picture_fails_has_it_on_its_sheet(photos: Path, name: str) -> None:
    Path("photos/sure.png").write_bytes(b"")
    result = bgx("batch", "photos/sure.png", "-o", "cut", "--sheet", name)

    assert result.code == ExitCode.PICTURES
    if name.endswith(".html"):
        assert read_page(Path(name)).title == "0 of 0 doubtful, 1 failed"
        assert "sure.png: is empty" in Path(name).read_text(encoding="utf-8")
    else:
        with Image.open(name) as picture:
            reddish = np.asarray(picture).astype(int) @ (1, -1, 0) > 100
        assert reddish.any()


def test_a_run_that_does_the_rest_has_a_sheet_of_its_own(photos: Path) -> None:
    bgx("batch", "photos", "-o", "cut", "--sheet", "sheet.html")
    before = Path("sheet.html").read_bytes()
    save_photo(Path("photos/new.png"))

    result = bgx("batch", "photos", "-o", "cut", "--sheet", "sheet.html")
    assert "--sheet sheet.html: exists; this run writes sheet-2.html" in result.err
    assert Path("sheet.html").read_bytes() == before
    assert b"new.png" in Path("sheet-2.html").read_bytes()

    again = bgx("batch", "photos", "-o", "cut", "--sheet", "sheet.html", "--existing", "overwrite")
    assert again.code == ExitCode.OK
    assert b"new.png" in Path("sheet.html").read_bytes()


def test_the_review_folder_is_never_read(photos: Path) -> None:
    for _ in range(2):
        result = bgx(
            *("batch", ".", "-o", "cut", "--review", "look", "--existing", "overwrite"),
            *("--report", "-"),
        )
    assert [row["source"] for row in result.rows[:-1]]
    assert not any("look" in row.get("source", "") for row in result.rows)


@pytest.mark.parametrize("name", ["sheet.jpg", "sheet.jpeg", "SHEET.JPG"])
def test_a_sheet_of_jpeg_is_a_picture(photos: Path, name: str) -> None:
    assert bgx("batch", "photos", "-o", "cut", "--sheet", name).code == ExitCode.OK
    with Image.open(name) as picture:
        picture.load()
        assert picture.width > 2 * PREVIEW_SIZE[0]


def test_a_page_may_end_in_htm(photos: Path) -> None:
    assert bgx("batch", "photos", "-o", "cut", "--sheet", "sheet.htm").code == ExitCode.OK
    assert Path("sheet.htm").read_bytes().startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sheet", "sheet.pdf"), "ends in .html or .jpg"),
        (("--sheet", "photos/b.jpg"), "would overwrite an input"),
        (("--sheet", "cut/b.jpg", "--format", "jpg"), "would be written twice"),
        (("--review", "photos"), "choose another output folder"),
        (("--review", "cut"), "would be written twice"),
        (("--review", "photos/b.jpg"), "is a file, not a folder"),
    ],
)
def test_review_and_sheet_never_take_another_file_s_place(
    photos: Path, arguments: tuple[str, ...], message: str
) -> None:
    save_photo(Path("photos/b.jpg"))
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    result = bgx("batch", "photos", "-o", "cut", *arguments)

    assert result.code in {ExitCode.USAGE, ExitCode.OUTPUT}
    assert message in result.err
    assert {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()} == before


def test_a_review_folder_never_overwrites_the_photos_it_is_named_after(photos: Path) -> None:
    sources = sorted(Path("photos").rglob("*.png"))
    before = [path.read_bytes() for path in sources]
    result = bgx("batch", *sources, "-o", "cut", "--review", "photos")

    assert result.code == ExitCode.USAGE
    assert [path.read_bytes() for path in sources] == before


def test_previews_keep_small(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8))
    sheet = open_sheet(tmp_path / "sheet.html")
    for number in range(10):
        sheet.add(done(f"{number}.jpg", "a.png", measured(0.5), noise, noise))
    sheet.write()

    assert (tmp_path / "sheet.html").stat().st_size < 10 * 50_000
    assert Image.open(io.BytesIO(preview.encode_preview(noise, noise))).size == PREVIEW_SIZE

"""Who goes where: every picture found, every target its own, nothing written over."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bgx.errors import OutputError, UsageError
from bgx.run.outcome import Job, Skipped
from bgx.run.plan import Plan, expand_patterns, name_targets, plan_batch, same_file, skip_existing

if TYPE_CHECKING:
    from bgx.settings import Existing

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX links and file names")


def plan(*inputs: Path, out: Path, suffix: str = ".png", existing: Existing = "skip") -> Plan:
    return plan_batch(inputs, out, suffix=suffix, suffixes=SUFFIXES, existing=existing)


def pairs(made: Plan, base: Path) -> list[tuple[str, str]]:
    """Sources and targets of the jobs below base."""
    return [
        (job.source.relative_to(base).as_posix(), job.target.relative_to(base).as_posix())
        for job in made.jobs
    ]


def touch(base: Path, *names: str, content: bytes = b"x") -> None:
    for name in names:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# Names of sources ---------------------------------------------------------------------------------

# Few letters, so that names meet: both cases, an umlaut composed and not, digits for the numbers.
_stems = st.text("aA-2.\u00fcu\u0308", min_size=1, max_size=4).filter(
    lambda text: text.strip(".") != ""
)
_names = st.builds(str.__add__, _stems, st.sampled_from([".jpg", ".JPG", ".png", ".jpg.png", ""]))
_paths = st.builds(PurePath, st.sampled_from(["", "x", "X", "x/y"]), _names)


def forgiving(path: PurePath) -> str:
    """One text for all names that some file system takes for one file."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.as_posix()).casefold())


@given(st.lists(_paths, unique=True, max_size=12))
@example([PurePath("a.jpg"), PurePath("a.png"), PurePath("a.jpg.jpg")])
def test_targets_are_distinct_on_the_most_forgiving_file_system(sources: list[PurePath]) -> None:
    targets = name_targets(sources, ".png")

    assert len(targets) == len(sources)
    assert len({forgiving(target) for target in targets}) == len(sources)


@given(st.lists(_paths, unique=True, max_size=12), st.sampled_from([".png", ".webp"]))
def test_a_target_stays_in_its_folder_and_has_the_suffix(
    sources: list[PurePath], suffix: str
) -> None:
    for source, target in zip(sources, name_targets(sources, suffix), strict=True):
        assert target.parent == source.parent
        assert target.name.endswith(suffix)


@given(st.lists(_paths, unique=True, max_size=12))
def test_the_same_sources_always_get_the_same_targets(sources: list[PurePath]) -> None:
    assert name_targets(sources, ".png") == name_targets(list(sources), ".png")


@given(st.lists(_paths, unique=True, max_size=12))
def test_a_source_with_a_target_to_itself_is_not_moved(sources: list[PurePath]) -> None:
    plain = [source.with_suffix(".png") for source in sources]
    keys = [forgiving(target) for target in plain]
    folders = {forgiving(folder) for source in sources for folder in source.parents}

    for target, wanted, key in zip(name_targets(sources, ".png"), plain, keys, strict=True):
        if keys.count(key) == 1 and key not in folders:
            assert target == wanted


def test_no_target_takes_the_name_of_another_s_folder() -> None:
    sources = [PurePath("a.jpg"), PurePath("A.png/1.jpg"), PurePath("A.png/x.png/2.jpg")]
    assert list(map(str, name_targets(sources, ".png"))) == [
        "a.jpg.png",
        str(PurePath("A.png/1.png")),
        str(PurePath("A.png/x.png/2.png")),
    ]


@posix
def test_a_pipe_in_a_folder_is_no_picture(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    os.mkfifo(tmp_path / "in/b.jpg")
    made = plan(tmp_path / "in", out=tmp_path / "out")
    assert [job.source.name for job in made.jobs] == ["a.jpg"]
    assert made.ignored == 1


def test_sources_that_want_one_target_keep_their_suffix() -> None:
    sources = [PurePath(name) for name in ("a.jpg", "a.png", "A.JPG", "b.jpg")]

    assert [str(target) for target in name_targets(sources, ".png")] == [
        "a.jpg.png",
        "a.png.png",
        "A.JPG-2.png",
        "b.png",
    ]


# Folders ------------------------------------------------------------------------------------------


def test_the_tree_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, "in/b.jpg", "in/sub/a.JPEG", "in/sub/deep/c.png")

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert pairs(made, tmp_path) == [
        ("in/b.jpg", "out/b.png"),
        ("in/sub/a.JPEG", "out/sub/a.png"),
        ("in/sub/deep/c.png", "out/sub/deep/c.png"),
    ]
    assert made.notes == []
    assert not (tmp_path / "out").exists()


def test_what_is_no_picture_is_counted_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/notes.txt", "in/Thumbs.db", "in/.hidden.jpg", "in/.git/x.jpg")

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert pairs(made, tmp_path) == [("in/a.jpg", "out/a.png")]
    assert made.ignored == 2


def test_a_file_named_by_itself_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "photo", "raw.data")

    made = plan(tmp_path / "photo", tmp_path / "raw.data", out=tmp_path / "out")

    assert pairs(made, tmp_path) == [("photo", "out/photo.png"), ("raw.data", "out/raw.png")]


def test_a_name_of_a_list_that_is_not_there_is_a_job(tmp_path: Path) -> None:
    """Reading it fails, and that is reported as any broken picture is."""
    made = plan(tmp_path / "gone.jpg", tmp_path / ("x" * 300 + ".jpg"), out=tmp_path / "out")

    assert len(made.jobs) == 2


def test_a_picture_named_twice_is_done_once(tmp_path: Path) -> None:
    touch(tmp_path, "in/sub/a.jpg")
    inputs = [tmp_path / "in", tmp_path / "in/sub/a.jpg", tmp_path / "in/./sub/a.jpg"]

    made = plan(*inputs, tmp_path / "in" / "sub", out=tmp_path / "out")

    assert pairs(made, tmp_path) == [("in/sub/a.jpg", "out/sub/a.png")]


def test_the_notes_name_the_sources_that_were_moved(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/a.png", "in/b.jpg")

    [note] = plan(tmp_path / "in", out=tmp_path / "out").notes

    assert note.startswith("2 sources would share a target")
    assert "a.jpg.png" in note
    assert "b.jpg" not in note


def test_files_of_one_name_keep_their_folders(tmp_path: Path) -> None:
    touch(tmp_path, "may/1.jpg", "june/1.jpg", "june/2.jpg")
    named = [tmp_path / name for name in ("may/1.jpg", "june/1.jpg", "june/2.jpg")]

    made = plan(*named, out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == [
        "out/may/1.png",
        "out/june/1.png",
        "out/june/2.png",
    ]
    assert str(tmp_path) in made.notes[0]


def test_folders_that_hold_files_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    touch(tmp_path, "shop/may/1.jpg", "shop/june/1.jpg", "shop/june/sub/2.jpg")

    made = plan(tmp_path / "shop/may", tmp_path / "shop/june", out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == [
        "out/may/1.png",
        "out/june/1.png",
        "out/june/sub/2.png",
    ]
    assert len(made.notes) == 1


def test_folders_that_share_no_name_are_poured_together(tmp_path: Path) -> None:
    touch(tmp_path, "may/1.jpg", "june/2.jpg")

    made = plan(tmp_path / "may", tmp_path / "june", out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == ["out/1.png", "out/2.png"]
    assert made.notes == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system that tells case apart")
def test_names_of_one_folder_that_differ_by_case_are_no_two_folders(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "A.jpg")

    made = plan(tmp_path / "a.jpg", tmp_path / "A.jpg", out=tmp_path / "out")

    assert [target for _, target in pairs(made, tmp_path)] == ["out/a.jpg.png", "out/A.jpg-2.png"]
    assert len(made.notes) == 1


@posix
def test_links_to_files_are_taken_and_links_to_folders_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "elsewhere/b.jpg")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").symlink_to(tmp_path / "elsewhere/b.jpg")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "in/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/circle").symlink_to(tmp_path / "in")

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert [source for source, _ in pairs(made, tmp_path)] == ["in/a.jpg", "in/gone.jpg"]
    assert [record.args for record in caplog.records] == [
        (tmp_path / "in/circle",),
        (tmp_path / "in/more",),
    ]


def test_a_folder_that_cannot_be_searched_is_a_job_that_will_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "in/a.jpg", "in/locked/b.jpg", "in/z.jpg")
    scan = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)

    made = plan(tmp_path / "in", out=tmp_path / "out")

    assert [source for source, _ in pairs(made, tmp_path)] == ["in/a.jpg", "in/z.jpg", "in/locked"]
    with pytest.raises(UsageError, match="locked: cannot be searched: Permission denied"):
        plan(tmp_path / "in/locked", out=tmp_path / "out")


def test_nothing_found_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    with pytest.raises(UsageError, match="no pictures found"):
        plan(tmp_path / "in", out=tmp_path / "out")
    with pytest.raises(UsageError, match="no pictures found"):
        plan(out=tmp_path / "out")


# The output folder --------------------------------------------------------------------------------


def test_the_output_folder_inside_the_input_is_not_read(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/sub/cut/old.png", "in/sub/b.jpg")

    made = plan(tmp_path / "in", out=tmp_path / "in/sub/cut")

    assert [source for source, _ in pairs(made, tmp_path)] == ["in/a.jpg", "in/sub/b.jpg"]


@posix
def test_the_output_folder_is_known_by_any_name(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/cut/old.png")
    (tmp_path / "link").symlink_to(tmp_path / "in/cut")

    made = plan(tmp_path / "in", out=tmp_path / "link")

    assert [source for source, _ in pairs(made, tmp_path)] == ["in/a.jpg"]


def test_a_shells_star_names_the_output_folder_on_the_second_run(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/b.jpg", "in/cut/a.png")

    made = plan(*sorted((tmp_path / "in").iterdir()), out=tmp_path / "in/cut")

    assert [source for source, _ in pairs(made, tmp_path)] == ["in/b.jpg"]
    assert [skipped.job.source.name for skipped in made.skipped] == ["a.jpg"]
    assert made.notes == [f"{tmp_path / 'in/cut'}: is the output folder and was not searched"]


def test_results_beside_their_sources_are_not_read_by_a_shells_star(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.png")

    with pytest.raises(UsageError, match=r"a\.png: lies in the output folder"):
        plan(tmp_path / "a.jpg", tmp_path / "a.png", out=tmp_path)


def test_sources_beside_their_results_may_be_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")

    assert pairs(plan(tmp_path / "a.jpg", out=tmp_path), tmp_path) == [("a.jpg", "a.png")]


def test_the_input_folder_is_no_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")

    with pytest.raises(UsageError, match="is the input folder too"):
        plan(tmp_path / "in", out=tmp_path / "in" / ".." / "in")


def test_the_output_folder_may_not_hold_the_input(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")

    with pytest.raises(UsageError, match="lies inside the output folder"):
        plan(tmp_path / "in", out=tmp_path)


def test_no_target_is_a_source(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "out/sub/a.png")
    (tmp_path / "in/sub").mkdir()
    os.link(tmp_path / "out/sub/a.png", tmp_path / "in/sub/a.jpg")

    with pytest.raises(UsageError, match="would overwrite an input"):
        plan(tmp_path / "in", out=tmp_path / "out", existing="overwrite")


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "out")

    with pytest.raises(OutputError, match="is a file, not a folder"):
        plan(tmp_path / "in", out=tmp_path / "out")


@posix
def test_links_in_a_circle_are_no_crash(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")

    assert len(plan(tmp_path / "in", out=tmp_path / "circle").jobs) == 1


# What exists --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("existing", "newer", "reason"),
    [
        ("skip", "source", "exists"),
        ("skip", "target", "exists"),
        ("update", "source", None),
        ("update", "target", "current"),
        ("overwrite", "target", None),
    ],
)
def test_existing_targets(
    tmp_path: Path, existing: Existing, newer: str, reason: str | None
) -> None:
    job = Job(tmp_path / "source", tmp_path / "target")
    touch(tmp_path, "source", "target")
    os.utime(tmp_path / "source", (1000, 2000 if newer == "source" else 1000))
    os.utime(tmp_path / "target", (1000, 1500))

    skipped = skip_existing(job, existing)

    assert (skipped.reason if skipped else None) == reason


def test_equal_times_are_current(tmp_path: Path) -> None:
    touch(tmp_path, "source", "target")
    for name in ("source", "target"):
        os.utime(tmp_path / name, (1000, 1000))

    skipped = skip_existing(Job(tmp_path / "source", tmp_path / "target"), "update")

    assert skipped is not None


@pytest.mark.parametrize("existing", ["skip", "update", "overwrite"])
def test_an_empty_target_or_a_folder_in_its_place_is_not_done(
    tmp_path: Path, existing: Existing
) -> None:
    touch(tmp_path, "source")
    touch(tmp_path, "empty", content=b"")
    (tmp_path / "folder").mkdir()

    assert skip_existing(Job(tmp_path / "source", tmp_path / "empty"), existing) is None
    assert skip_existing(Job(tmp_path / "source", tmp_path / "folder"), existing) is None


def test_a_second_plan_finds_the_first_ones_targets(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg", "in/a.png", "in/sub/a.jpg")
    first = plan(tmp_path / "in", out=tmp_path / "out")
    for job in first.jobs:
        touch(job.target.parent, job.target.name)

    second = plan(tmp_path / "in", out=tmp_path / "out")

    assert second.jobs == []
    assert second.skipped == [Skipped(job, "exists") for job in first.jobs]


# Patterns -----------------------------------------------------------------------------------------


def test_patterns_are_expanded_where_the_shell_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "b.jpg", "a.jpg", "sub/c.jpg", "d.png", "odd[1].jpg")
    monkeypatch.chdir(tmp_path)

    def expand(pattern: str) -> list[str]:
        return [path.as_posix() for path in expand_patterns([pattern])]

    assert expand("[ab].jpg") == ["a.jpg", "b.jpg"]
    assert expand("**/*.jpg") == ["a.jpg", "b.jpg", "odd[1].jpg", "sub/c.jpg"]
    assert expand("odd[1].jpg") == ["odd[1].jpg"]
    assert expand("sub") == ["sub"]


@pytest.mark.parametrize("name", ["nosuch.jpg", "*.gif", "x" * 300])
def test_what_matches_nothing_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(UsageError, match="no such file or folder"):
        list(expand_patterns([name]))


def test_one_file_by_two_names_is_the_same_file(tmp_path: Path) -> None:
    touch(tmp_path, "a", "b")
    os.link(tmp_path / "a", tmp_path / "hard")

    assert same_file(tmp_path / "a", tmp_path / "." / "a")
    assert same_file(tmp_path / "a", tmp_path / "hard")
    assert not same_file(tmp_path / "a", tmp_path / "b")
    assert not same_file(tmp_path / "gone", tmp_path / "gone")

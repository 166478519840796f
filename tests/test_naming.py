"""Names of results: one each, and the same one in every run, whatever comes or goes meanwhile."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bgx.run.naming import Name, name_targets, with_suffix

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HOUR = 3600 * 10**9


def forgiving(name: str) -> str:
    """One text for all names that some file system takes for one file."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


@dataclass
class Folders:
    """An input and an output folder through several runs, an hour apart.

    sources: when each came. results: of which source each is, and when it was made. forgets_case:
    the output folder takes names for one that differ in case.
    """

    forgets_case: bool = False
    now: int = 0
    sources: dict[str, int] = field(default_factory=dict)
    results: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, *names: str) -> None:
        self.now += HOUR
        for name in names:
            self.sources.setdefault(name, self.now)

    def plan(self) -> dict[str, str]:
        """The target of each source."""
        names = sorted(self.sources)
        keys = {self._key(name): time for name, (_, time) in self.results.items()}
        targets = name_targets(
            [Name(name, name) for name in names],
            ".png",
            lambda wanted: {
                name: keys[self._key(name)] for name in wanted if self._key(name) in keys
            },
            lambda index: self.sources[names[index]],
        )
        return dict(zip(names, targets, strict=True))

    def run(self, fail: Iterable[str] = (), *, overwrite: bool = False) -> dict[str, str]:
        """Make what is missing, or everything, but what fails; returns the plan."""
        self.now += HOUR
        plan = self.plan()
        there = {self._key(name) for name in self.results}
        for source, target in plan.items():
            if source not in fail and (overwrite or self._key(target) not in there):
                self.results[target] = source, self.now
        return plan

    def owners(self) -> dict[str, str]:
        """The result of each source that has one."""
        return {source: name for name, (source, _) in self.results.items()}

    def _key(self, name: str) -> str:
        return forgiving(name) if self.forgets_case else name


def name_all(names: Sequence[str]) -> list[str]:
    """Targets where there are no results yet."""
    return name_targets([Name(name, name) for name in names], ".png", lambda _: {}, lambda _: 0)


# Few letters, so that names meet: both cases, an umlaut composed and not, digits for the numbers.
_stems = st.text("aA-2.\u00fcu\u0308", min_size=1, max_size=4).filter(
    lambda text: text.strip(".") != ""
)
_lasts = st.builds(str.__add__, _stems, st.sampled_from([".jpg", ".JPG", ".png", ".jpg.png", ""]))
_names = st.builds(str.__add__, st.sampled_from(["", "x/", "X/", "x/y/", "a.png/"]), _lasts)
_neighbours = st.builds(str.__add__, st.sampled_from(["", "x/"]), _lasts)
_plain_neighbours = st.builds(
    str.__add__,
    st.text("aA2\u00fc", min_size=1, max_size=2),
    st.sampled_from([".jpg", ".JPG", ".webp", ".png", ""]),
)
_sources = st.lists(_names, unique=True, max_size=12)


@given(_sources)
@example(["a.jpg", "a.png", "a.jpg.jpg"])
def test_targets_are_distinct_on_the_most_forgiving_file_system(sources: list[str]) -> None:
    targets = name_all(sources)

    assert len(targets) == len(sources)
    assert len({forgiving(target) for target in targets}) == len(sources)


@given(_sources)
def test_a_target_stays_in_its_folder_and_has_the_suffix(sources: list[str]) -> None:
    for source, target in zip(sources, name_all(sources), strict=True):
        assert target.rpartition("/")[0] == source.rpartition("/")[0]
        assert target.endswith(".png")


@given(_sources)
def test_a_source_with_a_target_to_itself_is_not_moved(sources: list[str]) -> None:
    plain = [with_suffix(source, ".png") for source in sources]
    keys = [forgiving(target) for target in plain]
    folders = {forgiving(source.rpartition("/")[0]) for source in sources}
    folders |= {folder.rpartition("/")[0] for folder in folders}

    for target, wanted, key in zip(name_all(sources), plain, keys, strict=True):
        if keys.count(key) == 1 and key not in folders:
            assert target == wanted


def test_no_target_takes_the_name_of_another_s_folder() -> None:
    assert name_all(["a.jpg", "A.png/1.jpg", "A.png/x.png/2.jpg"]) == [
        "a.jpg.png",
        "A.png/1.png",
        "A.png/x.png/2.png",
    ]


def test_sources_that_want_one_target_keep_their_suffix() -> None:
    assert name_all(["a.jpg", "a.png", "A.JPG", "b.jpg"]) == [
        "a.jpg.png",
        "a.png.png",
        "A.JPG-2.png",
        "b.png",
    ]


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a", "a.png"),
        ("a.jpg?v=1", "a.png"),
        ("d.jpg (1)", "d.png"),
        ("..a", "..png"),
        ("a.", "a..png"),
        ("x.y/a", "x.y/a.png"),
        ("a//b.jpg", "a//b.png"),
    ],
)
def test_the_target_of_an_odd_name(name: str, target: str) -> None:
    assert name_all([name]) == [target]


# One run after the other --------------------------------------------------------------------------


@given(st.lists(st.tuples(st.lists(_neighbours, max_size=5), st.booleans()), max_size=4))
@example([(["b.jpg"], False), (["b.png"], True), (["B.JPG"], False)])
@example([(["a.jpg.jpg"], False), (["a.jpg", "a.webp"], True)])
@example([(["a.jpg", "a.webp"], False), (["a.jpg.jpg"], False)])
@example([(["a.jpg", "a.jpg.png"], False), (["a.JPG"], False)])
def test_photos_that_come_later_move_nobody_s_result(rounds: list[tuple[list[str], bool]]) -> None:
    """Whether results are made again in between or not."""
    folders = Folders()
    for names, overwrite in rounds:
        folders.add(*names)
        before = folders.owners()
        plan = folders.run(overwrite=overwrite)
        assert {source: plan[source] for source in before} == before
        assert folders.plan() == plan


@given(
    st.lists(
        st.tuples(
            st.lists(_plain_neighbours, max_size=5), st.sets(st.integers(0, 11)), st.booleans()
        ),
        max_size=4,
    )
)
def test_photos_that_fail_take_nobody_s_result(
    rounds: list[tuple[list[str], set[int], bool]],
) -> None:
    folders = Folders()
    for names, failing, overwrite in rounds:
        folders.add(*names)
        before = folders.owners()
        sources = sorted(folders.sources)
        failed = {sources[n] for n in failing if n < len(sources)}
        plan = folders.run(failed, overwrite=overwrite)
        assert {source: plan[source] for source in before} == before
        assert folders.plan() == plan


@given(st.booleans(), _sources)
def test_a_second_run_finds_the_first_one_s_results(forgets_case: bool, sources: list[str]) -> None:
    folders = Folders(forgets_case)
    folders.add(*sources)
    first = folders.run()

    assert folders.plan() == first
    assert folders.owners() == first


def test_a_photo_added_beside_another_of_its_stem_gets_the_long_name() -> None:
    folders = Folders()
    folders.add("b.jpg")
    folders.run()
    folders.add("b.png")

    assert folders.run() == {"b.jpg": "b.png", "b.png": "b.png.png"}


def test_a_photo_that_is_retouched_keeps_its_result() -> None:
    """A changed file looks as if it had just come."""
    folders = Folders()
    folders.add("b.jpg")
    folders.run()
    folders.add("b.png")
    folders.run()
    folders.sources["b.jpg"] = folders.now + HOUR

    assert folders.plan() == {"b.jpg": "b.png", "b.png": "b.png.png"}


def test_a_photo_whose_neighbour_went_keeps_its_result() -> None:
    folders = Folders()
    folders.add("b.jpg")
    folders.run()
    folders.add("b.png")
    folders.run()
    del folders.sources["b.jpg"]

    assert folders.plan() == {"b.png": "b.png.png"}


def test_a_result_that_is_older_than_all_its_photos_is_nobody_s() -> None:
    """Which of them it shows cannot be known, and a wrong guess would be a wrong picture."""
    folders = Folders()
    folders.add("b.jpg")
    folders.run()
    del folders.sources["b.jpg"]
    folders.add("b.png", "b.webp")

    assert folders.run() == {"b.png": "b.png.png", "b.webp": "b.webp.png"}
    assert folders.plan() == {"b.png": "b.png.png", "b.webp": "b.webp.png"}


def test_a_result_from_a_run_with_other_inputs_is_kept() -> None:
    names = [Name("may/1.jpg", "1.jpg"), Name("june/1.jpg", "1.jpg")]

    def name_both(*made: str) -> list[str]:
        found = dict.fromkeys(made, 2 * HOUR)
        return name_targets(
            names,
            ".png",
            lambda wanted: {name: found[name] for name in wanted if name in found},
            [HOUR, 3 * HOUR].__getitem__,
        )

    assert name_both() == ["may/1.png", "june/1.png"]
    assert name_both("1.png") == ["1.png", "june/1.png"]
    assert name_both("1.png", "june/1.png") == ["1.png", "june/1.png"]

"""Gives every source of a batch a target of its own, the same one in every run.

``a.jpg`` becomes ``a.png`` (its plain name). Sources that would share a plain name get their long
names, ``a.jpg.png`` and ``a.webp.png``, and a number if even these are taken. Existing results are
assigned first, so that adding or removing a photo never changes the targets of the others:

1. A result that only one source can have made belongs to it.
2. A result that several sources can have made belongs to the one that was there first, provided
   that it was there before the result; or to the only one of them that has no result of its own.
3. All other sources get new names: the plain name if no other source has the same, else a long one.

Names are relative to a folder and have ``/`` between their parts. They are compared without regard
to case and Unicode normalisation, because some file systems ignore both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from bgx.storage.base import fold

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence

_SLACK = 2_000_000_000
"""Tolerance for times, nanoseconds: file systems may round them."""


@dataclass(frozen=True, slots=True)
class Name:
    """The name of a source relative to the output folder, before its suffix is changed.

    below: in this run. former: what a run with other inputs may have called it; may be the same.
    """

    below: str
    former: str


def with_suffix(name: str, suffix: str) -> str:
    """The name with its suffix replaced."""
    folder, slash, last = name.rpartition("/")
    dot = last.rfind(".")
    stem = last[:dot] if 0 < dot < len(last) - 1 else last
    return f"{folder}{slash}{stem}{suffix}"


def name_targets(
    names: Sequence[Name],
    suffix: str,
    find: Callable[[Sequence[str]], Mapping[str, int]],
    arrived: Callable[[int], int],
    taken: Container[str] = frozenset(),
    *,
    moved: bool = False,
) -> list[str]:
    """A target for each source, no two of them equal on any file system.

    suffix: of the targets, with its dot. find: returns which of the given names are existing,
    complete results, and when each was made. arrived: when the source of this index came to its
    place. Times are nanoseconds since the epoch. taken: targets of other sources, folded. moved:
    sources are moved away when they are done, so a result older than its source is another one's.
    """
    folders = _list_folders(names)
    wishes = _make_wishes(names, suffix, folders, taken)
    found = find([name for wish in wishes for name in wish.names])
    made = {
        name: time
        for name, time in found.items()
        if fold(name) not in folders and fold(name) not in taken
    }
    # The sources that can have made each result. `made` has exact names, so that on a
    # case-sensitive file system "A.jpg.png" is not taken for the result of "a.jpg".
    wanted: dict[str, set[int]] = defaultdict(set)
    for index, wish in enumerate(wishes):
        for name in wish.names:
            if name in made and not (moved and made[name] <= arrived(index)):
                wanted[fold(name)].add(index)

    targets = _keep_own(wishes, wanted, made)
    _settle_contested(wishes, wanted, made, arrived, targets)
    _name_others(wishes, suffix, made, folders, taken, targets)
    return [targets[index] for index in range(len(names))]


@dataclass(frozen=True, slots=True)
class _Wish:
    """The names that a source's result may have.

    below: the source's name. plain, long: for a new result; all long ones but the first have a
    number. former: from runs with other inputs. alone: no other source has the same plain name.
    """

    below: str
    plain: str
    long: list[str]
    former: list[str]
    alone: bool

    @property
    def names(self) -> list[str]:
        """All names, the most specific first: only sources that had to share got a longer name."""
        return [*reversed(self.long), self.plain, *self.former]

    @property
    def claims(self) -> list[str]:
        """The names that it may claim although other sources could have them too."""
        return [self.plain, *self.former] if self.alone else self.names


def _make_wishes(
    names: Sequence[Name], suffix: str, folders: Collection[str], taken: Container[str]
) -> list[_Wish]:
    plain = [with_suffix(name.below, suffix) for name in names]
    plain_times = Counter(map(fold, plain))
    long_times = Counter(fold(name.below + suffix) for name in names)
    wishes = []
    for name, own in zip(names, plain, strict=True):
        long = fold(name.below + suffix)
        others = plain_times[long] - (long == fold(own))
        numbers = long_times[long] + (others > 0 or long in folders or long in taken)
        former = [name.former + suffix, with_suffix(name.former, suffix)]
        wishes.append(
            _Wish(
                name.below,
                own,
                [_number(name.below, suffix, number) for number in range(1, numbers + 1)],
                former if name.former != name.below else [],
                alone=plain_times[fold(own)] == 1
                and fold(own) not in folders
                and fold(own) not in taken,
            )
        )
    return wishes


def _number(below: str, suffix: str, number: int) -> str:
    return f"{below}{suffix}" if number == 1 else f"{below}-{number}{suffix}"


def _list_folders(names: Sequence[Name]) -> set[str]:
    """The folders of the targets, folded; no target may have the name of one of them."""
    folders: set[str] = set()
    for name in names:
        folder = fold(name.below)
        while (folder := folder.rpartition("/")[0]) and folder not in folders:
            folders.add(folder)
    return folders


def _keep_own(
    wishes: Sequence[_Wish], wanted: Mapping[str, set[int]], made: Mapping[str, int]
) -> dict[int, str]:
    """The results that only one source can have made, by the source's index."""
    targets = {}
    for index, wish in enumerate(wishes):
        own = (name for name in wish.names if name in made and wanted[fold(name)] == {index})
        if name := next(own, None):
            targets[index] = name
    return targets


def _settle_contested(
    wishes: Sequence[_Wish],
    wanted: Mapping[str, set[int]],
    made: Mapping[str, int],
    arrived: Callable[[int], int],
    targets: dict[int, str],
) -> None:
    """Assign the results that several sources without a result can have made."""
    # Plain names first: a source that got its plain name before the others came has no long one.
    plain = {fold(wish.plain) for wish in wishes}
    contested = [key for key, indices in wanted.items() if len(indices) > 1]
    for key in sorted(contested, key=lambda key: (key not in plain, len(key), key)):
        claims = {
            index: name
            for index in sorted(wanted[key] - targets.keys())
            for name in wishes[index].claims
            if name in made and fold(name) == key
        }
        if not claims:
            continue
        first = min(claims, key=arrived)
        others = [name for name in wishes[first].claims if name in made and fold(name) != key]
        if arrived(first) <= made[claims[first]] + _SLACK or (len(claims) == 1 and not others):
            targets[first] = claims[first]


def _name_others(
    wishes: Sequence[_Wish],
    suffix: str,
    made: Collection[str],
    folders: Collection[str],
    taken: Container[str],
    targets: dict[int, str],
) -> None:
    """Give new names to the sources that have none."""
    chosen = {fold(name) for name in targets.values()}
    reserved = {fold(wish.plain) for wish in wishes} | set(folders)

    def is_free(name: str) -> bool:
        return fold(name) not in chosen and fold(name) not in taken

    for index, wish in enumerate(wishes):
        if index in targets:
            continue
        target = wish.plain
        if not wish.alone or not is_free(target) or target in made:
            names = (_number(wish.below, suffix, number) for number in count(1))
            target = next(
                name
                for name in names
                if name not in made and fold(name) not in reserved and is_free(name)
            )
        targets[index] = target
        chosen.add(fold(target))

"""A target of its own for every source of a batch, the same one in every run.

``a.jpg`` gives ``a.png``. Sources that would share that name give ``a.jpg.png`` and ``a.webp.png``,
with a number where even these are taken. Results that are there already decide first, so that a
photo which comes to the others later, or goes, moves nobody's target:

1. A result whose name only one of the sources can have is that source's.
2. A result that several could have is the source's which came first, if it came before the result
   was made; where the others have results of their own, it is that of the one left over.
3. All others get new names; a source that shares its plain name with none gets that.

Names below a folder are text with ``/`` between their parts. They are compared as the most
forgiving file system would, which ignores case and Unicode's forms.
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
"""Nanoseconds by which a file system may round times."""


@dataclass(frozen=True, slots=True)
class Name:
    """What a source is called below the folder it was found in.

    below: as this run has it. former: as a run with other inputs may have had it, or the same.
    """

    below: str
    former: str


def with_suffix(name: str, suffix: str) -> str:
    """The name with this suffix in place of its own."""
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
) -> list[str]:
    """A target for each source, no two of them equal in any file system.

    suffix: of the targets, with its dot. find: of these names the results that are there, complete,
    with the times at which they were made. arrived: when the source of that index came to lie where
    it is. Times are nanoseconds since the epoch. taken: targets of other sources, folded.
    """
    folders = _list_folders(names)
    wishes = _make_wishes(names, suffix, folders, taken)
    found = find([name for wish in wishes for name in wish.names])
    made = {
        name: time
        for name, time in found.items()
        if fold(name) not in folders and fold(name) not in taken
    }
    # Whose each result could be. Where case counts, "A.jpg.png" is not that of "a.jpg".
    wanted: dict[str, set[int]] = defaultdict(set)
    for index, wish in enumerate(wishes):
        for name in wish.names:
            if name in made:
                wanted[fold(name)].add(index)

    targets = _keep_own(wishes, wanted, made)
    _settle_contested(wishes, wanted, made, arrived, targets)
    _name_others(wishes, suffix, made, folders, taken, targets)
    return [targets[index] for index in range(len(names))]


@dataclass(frozen=True, slots=True)
class _Wish:
    """Names that a source's result may have.

    below: the source's name. plain, long: of a new result; the long ones with a number each but the
    first. former: that it may have from other runs. alone: no other source has this plain name.
    """

    below: str
    plain: str
    long: list[str]
    former: list[str]
    alone: bool

    @property
    def names(self) -> list[str]:
        """The most telling first: a result has a number or its long name only where it must."""
        return [*reversed(self.long), self.plain, *self.former]

    @property
    def claims(self) -> list[str]:
        """Those that it asks for although others may have them too; alone it needs no long one."""
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
    """Folders that targets lie in, which no target may take the name of; folded."""
    folders: set[str] = set()
    for name in names:
        folder = fold(name.below)
        while (folder := folder.rpartition("/")[0]) and folder not in folders:
            folders.add(folder)
    return folders


def _keep_own(
    wishes: Sequence[_Wish], wanted: Mapping[str, set[int]], made: Mapping[str, int]
) -> dict[int, str]:
    """Results that only one source can have."""
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
    """Add the results that several sources without one could have."""
    # Plain names first: whoever had a plain name before others came has no long one.
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
    """Add new names for the sources that have none."""
    chosen = {fold(name) for name in targets.values()}
    reserved = {fold(wish.plain) for wish in wishes} | set(folders)

    def is_free(name: str) -> bool:
        return fold(name) not in chosen and fold(name) not in taken

    for index, wish in enumerate(wishes):
        if index in targets:
            continue
        target = wish.plain
        if not wish.alone or not is_free(target):
            names = (_number(wish.below, suffix, number) for number in count(1))
            target = next(
                name
                for name in names
                if name not in made and fold(name) not in reserved and is_free(name)
            )
        targets[index] = target
        chosen.add(fold(target))

"""Model files on this machine: where they lie and why they are trusted.

::

    FOLDER/models/NAME.onnx        fetched, or added by the user
    FOLDER/models/NAME.json        the user added it: its own hash, and how it is fed
    FOLDER/stamps/….json           what a file hashed to, valid while its size and time stay
    FOLDER/prepared/SHA256-….onnx  copies made by bgx.model.prepare of the file with that hash
    FOLDER/optimized/SHA256-….onnx int8 and fp16 copies that passed here, each with a record .json
    FOLDER/engines/                engines and timings built by TensorRT and others
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bgx.errors import BadModelError, MissingModelError, ModelError, UsageError
from bgx.files import remove_leftovers, temporary, write_whole
from bgx.model import files
from bgx.model.digests import Digests, hash_file, read_digests
from bgx.model.registry import (
    FALLBACKS,
    ModelEntry,
    builtin_file,
    entry_for_file,
    entry_from_table,
    find_entry,
    load_registry,
)
from bgx.model.rembg import find_home, rembg_paths
from bgx.settings import DEFAULT_MODEL, ModelSettings

log = logging.getLogger(__name__)

Origin = Literal["builtin", "fetched", "added", "rembg", "file"]
_LARGEST_OF_OURS = 64_000_000

RETRY_S = 600.0
"""How long the default network is not asked for again after its server did not answer, seconds."""

_BEFORE = "before"
"""Key of a record: the table of the file that was replaced."""

OF_FILE = "file"
"""Name of the entry of a file that says itself how it is fed."""

Check = Callable[[Path, ModelEntry, str], None]
"""Raises BadModelError, naming the file as told, where it does not run as the entry says."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that may be run.

    digest: ``sha256:…`` of its bytes, the key of everything derived from it.
    """

    entry: ModelEntry
    path: Path
    digest: str
    origin: Origin


@dataclass(frozen=True)
class Store:
    """Finds, fetches, adds and removes model files as `settings` say.

    first_answer: seconds that a server may take to begin to answer; None is bgx's own limit.
    """

    settings: ModelSettings = field(default_factory=ModelSettings)
    first_answer: float | None = None

    @cached_property
    def folder(self) -> Path:
        """Where everything lies: the settings' folder, else the platform's cache folder."""
        if self.settings.folder is not None:
            return self.settings.folder
        import platformdirs

        try:
            return platformdirs.user_cache_path("bgx", appauthor=False)
        except RuntimeError:  # a user without a home
            raise UsageError("no folder to keep models in; set BGX_HOME to one") from None

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def prepared(self) -> Path:
        return self.folder / "prepared"

    @property
    def optimized(self) -> Path:
        return self.folder / "optimized"

    @property
    def engines(self) -> Path:
        return self.folder / "engines"

    def registry(self) -> dict[str, ModelEntry]:
        """The built-in registry, the user's file, and the names the user added with a file."""
        registry = load_registry(self.settings.registry)
        for record in files.found(self.models, "[!.]*.json"):
            name = record.stem
            if name in registry:
                continue
            try:
                registry[name] = entry_from_table(name, _read_record(record)[0], record)
            except (BadModelError, UsageError) as error:
                # It must not stand in the way of every other network.
                log.warning("%s", error)
        return registry

    def locate(self, entry: ModelEntry, *, trust_stamp: bool = True) -> ModelFile | None:
        """The entry's file on this machine, or None.

        A file of rembg's is taken when its hash fits and passed over when not. trust_stamp: False
        hashes again. Raises BadModelError when the file in bgx's own folder does not have the hash
        it had or should have.
        """
        own = self._own(entry.name)
        if files.is_file(own):
            return self._check_own(entry, own, trust_stamp=trust_stamp)
        if entry.builtin is not None:
            return self._check_builtin(entry, entry.builtin, trust_stamp=trust_stamp)
        if entry.hash is None:
            return None
        for path in rembg_paths(entry.name, os.environ, find_home()):
            if not files.is_file(path):
                continue
            try:
                digests = self._digests(path, trust_stamp=trust_stamp)
            except BadModelError as error:
                log.debug("%s", error)
                continue
            if digests.fits(entry.hash):
                return ModelFile(entry, path, f"sha256:{digests.sha256}", "rembg")
            log.debug("%s: passed over, its hash is not that of %s", path, entry.name)
        return None

    def present(self, entry: ModelEntry) -> bool:
        """Whether the entry can be run without the network."""
        try:
            return self.locate(entry) is not None
        except BadModelError:
            return False

    def resolve(
        self, model: str | None, registry: Mapping[str, ModelEntry], *, progress: bool = False
    ) -> ModelFile:
        """The file of a NAME of the registry or of a path to FILE.onnx, fetched where needed.

        None is the default network; where that is not to be had, the best other one that is here,
        and a warning says so. One asked for is never replaced. Raises UnknownModelError,
        MissingModelError and BadModelError.
        """
        if model is None:
            return self._resolve_default(registry, progress=progress)
        if not _is_path(model):
            entry = find_entry(registry, model)
            return self.locate(entry) or self.download(entry, progress=progress)
        path = Path(model)
        _check_readable(path)
        digest = f"sha256:{self._digests(path).sha256}"
        return ModelFile(_describe(path, registry), path, digest, "file")

    def _resolve_default(self, registry: Mapping[str, ModelEntry], *, progress: bool) -> ModelFile:
        entry = find_entry(registry, DEFAULT_MODEL)
        try:
            return self.locate(entry) or self._download_default(entry, progress=progress)
        except MissingModelError as error:
            for name in FALLBACKS:
                try:
                    found = self.locate(registry[name]) if name in registry else None
                except BadModelError as damaged:
                    log.warning("%s", damaged)
                    continue
                if found is not None:
                    reason = str(error).partition(";")[0]
                    log.warning("%s; taking %s, the best network that is here", reason, name)
                    return found
            raise

    def _download_default(self, entry: ModelEntry, *, progress: bool) -> ModelFile:
        """Download the default network, unless its server kept us waiting in vain a while ago.

        Behind a firewall that drops packets, every command would wait otherwise.
        """
        from bgx.model.fetch import NoAnswerError, address_of

        note = self.folder / "stamps" / "no-answer"
        # The address may hold a login.
        asked = hashlib.sha256(address_of(entry, self.settings.mirror).encode()).digest()
        if not self.settings.offline and _read_recent(note) == asked:
            raise MissingModelError(
                f"{entry.name}: its server did not answer a few minutes ago; "
                f"run: bgx models download {entry.name}"
            )
        try:
            return self.download(entry, progress=progress)
        except NoAnswerError:
            try:
                write_whole(note, asked)
            except OSError as error:
                log.debug("%s: not kept: %s", note, error)
            raise

    def download(self, entry: ModelEntry, *, progress: bool = False) -> ModelFile:
        """Fetch the entry's file; one that is there and whole is not fetched again.

        Raises MissingModelError, BadModelError and ModelError as :func:`bgx.model.fetch.fetch`.
        """
        try:
            found = self.locate(entry)
        except BadModelError as error:
            if self.settings.offline:
                raise
            log.info("%s", error)
            found = None
        if found is not None:
            return found
        if self.settings.offline:
            raise MissingModelError(
                f"{entry.name}: not on this machine, and bgx is offline; without --offline run: "
                f"bgx models download {entry.name}, or: bgx models add {entry.name} FILE.onnx"
            )
        from bgx.model.fetch import fetch

        path = fetch(
            entry,
            self.models,
            mirror=self.settings.mirror,
            progress=progress,
            first_answer=self.first_answer,
        )
        self._record(entry.name).unlink(missing_ok=True)
        return self._check_own(entry, path)

    def add(
        self, name: str, file: Path, registry: Mapping[str, ModelEntry], *, check: Check
    ) -> ModelFile:
        """Keep a copy of `file` under `name`, its own hash recorded in place of the registry's.

        A name of one's own takes the settings that the file itself has, else those of the entry of
        its stem, else those of U²-Net. Nothing is replaced before `check` has passed the copy.
        Raises UsageError (a name that cannot be one, or is that of a network fed otherwise),
        MissingModelError, BadModelError and ModelError.
        """
        _check_readable(file)
        published = load_registry(self.settings.registry)
        described = _describe(file, published)
        if name not in published:
            like = replace(described, url=None, builtin=None, tried=False, licence="unknown")
            entry = replace(like, name=name, about=f"added from {file.name}")
        elif described.name == OF_FILE and described.feed != published[name].feed:
            raise UsageError(f"{file}: is not fed as {name} is; add it under a name of its own")
        else:
            entry = published[name]
        try:
            self.models.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.models)
            with temporary(self.models) as copy:
                shutil.copyfile(file, copy)
                check(copy, entry, str(file))
                digest, size = f"sha256:{hash_file(copy).sha256}", copy.stat().st_size
                added = replace(entry, url=None, builtin=None, hash=digest, bytes=size)
                # The record first, so that a full disk costs no network. Until the file follows,
                # and if it never does, the record tells of the old file too.
                record = _table(added) | {_BEFORE: self._describe_own(name, published)}
                write_whole(self._record(name), json.dumps(record, indent=2).encode())
                copy.replace(self._own(name))
        except OSError as error:
            raise ModelError(
                f"{self.models}: {file} cannot be kept there: {error.strerror or error}; "
                "make room or set BGX_HOME to another folder"
            ) from None
        return ModelFile(added, self._own(name), digest, "added")

    def remove(self, name: str) -> Path:
        """Delete the name's file and the copies made of it; rembg's files are never touched.

        Returns the path it had. Raises MissingModelError when there is none.
        """
        path, record = self._own(name), self._record(name)
        if Path(name).name != name or not (files.is_file(path) or files.is_file(record)):
            raise MissingModelError(f"{name}: no file of it in {self.models}; nothing removed")
        try:
            if files.is_file(path):
                for folder in (self.prepared, self.optimized):
                    for copy in files.found(folder, f"{self._digests(path).sha256}-*"):
                        copy.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            record.unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(f"{path}: cannot be removed: {error.strerror or error}") from None
        return path

    def verify(self, entry: ModelEntry) -> ModelFile:
        """Hash the entry's file again, whatever its stamp says.

        Raises MissingModelError when it is not on this machine, BadModelError when it changed.
        """
        found = self.locate(entry, trust_stamp=False)
        if found is None:
            raise MissingModelError(
                f"{entry.name}: not on this machine; run: bgx models download {entry.name}"
            )
        return found

    def _check_builtin(
        self, entry: ModelEntry, name: str, *, trust_stamp: bool
    ) -> ModelFile | None:
        path = builtin_file(name)
        if not files.is_file(path):
            return None
        digests = self._digests(path, trust_stamp=trust_stamp)
        if entry.hash is None or not digests.fits(entry.hash):
            raise BadModelError(f"{path}: damaged or replaced; install bgx anew")
        return ModelFile(entry, path, f"sha256:{digests.sha256}", "builtin")

    def _own(self, name: str) -> Path:
        return self.models / f"{name}.onnx"

    def _record(self, name: str) -> Path:
        return self.models / f"{name}.json"

    def _describe_own(
        self, name: str, published: Mapping[str, ModelEntry]
    ) -> dict[str, Any] | None:
        """The table of the file that is kept under a name; None where it is not known."""
        if files.is_file(self._record(name)):
            try:
                return _read_record(self._record(name))[0]
            except BadModelError:
                return None
        return _table(published[name]) if name in published else None

    def _check_own(self, entry: ModelEntry, path: Path, *, trust_stamp: bool = True) -> ModelFile:
        # The file before its record: `add` writes them the other way round.
        digests = self._digests(path, trust_stamp=trust_stamp)
        record = self._record(entry.name)
        added = files.is_file(record)
        tables = _read_record(record) if added else [{"hash": entry.hash}]
        hashes = [table.get("hash") for table in tables]
        fitting = [table for table in tables if digests.fits(table.get("hash"))]
        if not fitting and hashes != [None]:
            remedy = "add {} FILE.onnx" if added or entry.url is None else "download {}"
            raise BadModelError(
                f"{path}: damaged or replaced, its hash is not {hashes[0]}; "
                f"run: bgx models {remedy.format(entry.name)}"
            )
        if added and fitting and entry.url is None and entry.hash in hashes:
            # A name of the user's own, of which the record alone says how it is fed.
            entry = entry_from_table(entry.name, fitting[0], record)
        return ModelFile(entry, path, f"sha256:{digests.sha256}", "added" if added else "fetched")

    def _digests(self, path: Path, *, trust_stamp: bool = True) -> Digests:
        return read_digests(path, self.folder / "stamps", trust_stamp=trust_stamp)


def _describe(path: Path, registry: Mapping[str, ModelEntry]) -> ModelEntry:
    """How a file is fed: as it says itself, else as the entry of its stem, else as U²-Net."""
    from bgx.model.prepare import read_table

    # A large file was not made by bgx train, and takes long to look into.
    table = read_table(path) if path.stat().st_size <= _LARGEST_OF_OURS else None
    if table is None:
        return entry_for_file(registry, path)
    try:
        return entry_from_table(OF_FILE, table, path)
    except UsageError as error:
        raise BadModelError(f"{error}; the file was not made by this version of bgx") from None


def _read_recent(note: Path) -> bytes | None:
    """A note that was written less than RETRY_S ago."""
    try:
        age = time.time() - note.stat().st_mtime
        return note.read_bytes() if 0 <= age < RETRY_S else None
    except OSError:
        return None


def _is_path(model: str) -> bool:
    return model.lower().endswith(".onnx") or "/" in model or os.sep in model


def _check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise MissingModelError(
            f"{path}: cannot be read: {error.strerror or error}; for networks by name see: "
            "bgx models list"
        ) from None


def _table(entry: ModelEntry) -> dict[str, Any]:
    """The entry as a table of a registry file."""
    values = asdict(entry)
    del values["name"]
    return {field: value for field, value in values.items() if value is not None}


def _read_record(path: Path) -> list[dict[str, Any]]:
    """The table of an added file and, if there was one, of the file that it replaced."""
    try:
        table = json.loads(path.read_bytes())
        before = table.pop(_BEFORE, None)
    except (OSError, ValueError, AttributeError, TypeError):
        raise BadModelError(f"{path}: damaged; run: bgx models add {path.stem} FILE.onnx") from None
    return [table, before] if isinstance(before, dict) else [table]

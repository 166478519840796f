"""Model files on this machine: finds, downloads, checks, adds and removes them.

::

    FOLDER/models/NAME.onnx        downloaded, or added by the user
    FOLDER/models/NAME.json        for an added file: its hash and its registry entry
    FOLDER/stamps/….json           hash of a file, valid as long as its size and time are the same
    FOLDER/prepared/SHA256-….onnx  prepared copies of the file with that hash; those for the CPU
                                   have their weights in ….weights
    FOLDER/facts/SHA256-….json     what bgx.model.unknown found in it
    FOLDER/facts/SHA256-….onnx     a copy of it that has the usual form, if it has another
    FOLDER/optimized/SHA256-….onnx int8 and fp16 copies that passed here, each with a record .json
    FOLDER/engines/                engines and timings built by TensorRT and others
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bgx.errors import BadModelError, MissingModelError, ModelError, UsageError
from bgx.files import remove_leftovers, temporary, write_whole
from bgx.model import files
from bgx.model.digests import Digests, hash_file, read_digests
from bgx.model.registry import (
    FALLBACKS,
    ModelEntry,
    builtin_file,
    entry_from_table,
    find_entry,
    load_registry,
)
from bgx.model.rembg import find_home, rembg_paths
from bgx.model.unknown.describe import copy_whole, describe, read_own
from bgx.settings import DEFAULT_MODEL, ModelSettings

log = logging.getLogger(__name__)

Origin = Literal["builtin", "fetched", "added", "rembg", "file"]

RETRY_S = 600.0
"""For how long the default network is not requested again if its server did not answer, seconds."""

_BEFORE = "before"
"""Key in a record: the entry of the file that was replaced."""

Check = Callable[[Path, ModelEntry, str], None]
"""Raises BadModelError if a file does not run with an entry's settings. The text is its name."""


class ModelFile(NamedTuple):
    """A model file whose hash has been checked.

    digest: ``sha256:…``; copies made of the file are named after it. named: the file that the user
    named, if it is run as a copy of the usual form.
    """

    entry: ModelEntry
    path: Path
    digest: str
    origin: Origin
    named: Path | None = None

    @property
    def shown(self) -> Path:
        """The file in messages."""
        return self.named or self.path


@dataclass(frozen=True)
class Store:
    """Finds, downloads, adds and removes model files.

    first_answer: seconds that a server may take to begin its answer; None is bgx's own limit.
    """

    settings: ModelSettings = field(default_factory=ModelSettings)
    first_answer: float | None = None

    @cached_property
    def folder(self) -> Path:
        """The folder of all files: that of the settings, else the platform's cache folder."""
        if self.settings.folder is not None:
            return self.settings.folder
        import platformdirs

        try:
            return platformdirs.user_cache_path("bgx", appauthor=False)
        except RuntimeError:  # a user without a home
            raise UsageError("no home folder to keep models in; set BGX_HOME to a folder") from None

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def prepared(self) -> Path:
        return self.folder / "prepared"

    @property
    def facts(self) -> Path:
        return self.folder / "facts"

    @property
    def optimized(self) -> Path:
        return self.folder / "optimized"

    @property
    def engines(self) -> Path:
        return self.folder / "engines"

    def registry(self) -> dict[str, ModelEntry]:
        """All networks: of the built-in registry, of the user's registry, and added by the user."""
        registry = load_registry(self.settings.registry)
        for record in files.found(self.models, "[!.]*.json"):
            name = record.stem
            if name in registry:
                continue
            try:
                registry[name] = entry_from_table(name, _read_record(record)[0], record)
            except (BadModelError, UsageError) as error:
                # One damaged record must not make all other networks unusable.
                log.warning("%s", error)
        return registry

    def locate(self, entry: ModelEntry, *, trust_stamp: bool = True) -> ModelFile | None:
        """The entry's file on this machine, or None.

        A file in rembg's folders is used if it has the right hash. trust_stamp: if False, the file
        is hashed again. Raises BadModelError if the file in bgx's own folder has a wrong hash.
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
            log.debug("%s: not used, its hash is not that of %s", path, entry.name)
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
        """The file of a network, downloaded if needed.

        model: a name in the registry or a path to an ONNX file. None is the default network or, if
        that cannot be downloaded, the best one on this machine, with a warning; a network that is
        named is never replaced. Raises UnknownModelError, MissingModelError and BadModelError.
        """
        if model is None and self.settings.family is not None:
            raise UsageError(f"--as {self.settings.family}: name a FILE.onnx with --model")
        if model is None:
            return self._resolve_default(registry, progress=progress)
        if not _is_path(model):
            if self.settings.family is not None:
                raise UsageError(
                    f"--as {self.settings.family}: says how a FILE.onnx is fed; {model} has a "
                    "table that says it"
                )
            entry = find_entry(registry, model)
            return self.locate(entry) or self.download(entry, progress=progress)
        path = Path(model)
        _check_readable(path)
        digest = f"sha256:{self._digests(path).sha256}"
        entry, run = describe(path, digest, registry, self.settings.family, self.facts)
        if run == path:
            return ModelFile(entry, path, digest, "file")
        # Workers compare the hash of the file itself: copies may differ by the version of onnx.
        entry = replace(entry, hash=digest)
        return ModelFile(entry, run, f"sha256:{self._digests(run).sha256}", "file", path)

    def identify(self, model: str | None, registry: Mapping[str, ModelEntry]) -> tuple[str, str]:
        """Name and hash (``sha256:…`` or ``md5:…``) of a network as of :meth:`resolve`.

        Nothing is fetched: it need not be on this machine where the registry has its hash. Raises
        as :meth:`resolve`.
        """
        if model is not None and _is_path(model):
            file = self.resolve(model, registry)
            return file.entry.name, (file.named and file.entry.hash) or file.digest
        entry = find_entry(registry, model or DEFAULT_MODEL)
        if found := self.locate(entry):
            return entry.name, found.digest
        if entry.hash is None:
            raise MissingModelError(
                f"{entry.name}: the registry has no hash of it, so that workers could not tell it "
                f"from another one; run: bgx models download {entry.name}"
            )
        return entry.name, entry.hash

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
                    log.warning("%s; using %s, the best network on this machine", reason, name)
                    return found
            raise

    def _download_default(self, entry: ModelEntry, *, progress: bool) -> ModelFile:
        """Download the default network, unless its server did not answer a short time ago.

        Otherwise every command would wait for the time limit behind a firewall that drops packets.
        """
        from bgx.model.fetch import NoAnswerError, address_of

        note = self.folder / "stamps" / "no-answer"
        # Hashed, because the address may contain a password.
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
        """Download the entry's file, unless it exists and is undamaged.

        Raises MissingModelError, BadModelError and ModelError like :func:`bgx.model.fetch.fetch`.
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
        """Store a copy of `file` under `name`; its hash replaces that of the registry.

        A new name gets the settings (input size, mean and so on) of ``settings.family``, else those
        that the file contains, else those of the registry entry with the file's stem, else what its
        graph tells. An existing file is replaced only after `check` has accepted the copy. Raises
        UsageError (an invalid name, or one of a network with other settings), MissingModelError,
        BadModelError and ModelError.
        """
        _check_readable(file)
        published = load_registry(self.settings.registry)
        replace(published[DEFAULT_MODEL], name=name)  # raises if the name is invalid
        digest = f"sha256:{hash_file(file).sha256}"
        source = file
        if name in published:
            entry = published[name]
            own = read_own(file, digest, self.facts)
            if self.settings.family is not None:
                raise UsageError(f"--as {self.settings.family}: {name} has a table of its own")
            if own is not None and own.feed != entry.feed:
                raise UsageError(
                    f"{file}: has other settings than {name}; add it under another name"
                )
        else:
            like, source = describe(file, digest, published, self.settings.family, self.facts)
            plain = replace(like, url=None, builtin=None, tried=False, licence="unknown")
            unmeasured = replace(plain, family="", quality="", cost="")
            entry = replace(unmeasured, name=name, about=f"added from {file.name}")
        try:
            self.models.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.models)
            with temporary(self.models) as copy:
                copy_whole(source, copy)
                check(copy, entry, str(file))
                digest, size = f"sha256:{hash_file(copy).sha256}", copy.stat().st_size
                added = replace(entry, url=None, builtin=None, hash=digest, bytes=size)
                # The record is written first, so that a full disk does not cost the old network. It
                # describes the old file too, which stays in use until the new one is moved.
                record = _table(added) | {_BEFORE: self._describe_own(name, published)}
                write_whole(self._record(name), json.dumps(record, indent=2).encode())
                copy.replace(self._own(name))
        except OSError as error:
            raise ModelError(
                f"{self.models}: {file} cannot be copied there: {error.strerror or error}; "
                "make room or set BGX_HOME to another folder"
            ) from None
        return ModelFile(added, self._own(name), digest, "added")

    def remove(self, name: str) -> Path:
        """Delete the file of this name and all copies made of it, but never rembg's files.

        Returns the path it had. Raises MissingModelError if there is none.
        """
        path, record = self._own(name), self._record(name)
        if Path(name).name != name or not (files.is_file(path) or files.is_file(record)):
            raise MissingModelError(f"{name}: has no file in {self.models}; nothing was removed")
        try:
            if files.is_file(path):
                for folder in (self.prepared, self.optimized, self.facts):
                    for copy in files.found(folder, f"{self._digests(path).sha256}-*"):
                        copy.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            record.unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(f"{path}: cannot be removed: {error.strerror or error}") from None
        return path

    def verify(self, entry: ModelEntry) -> ModelFile:
        """Check the hash of the entry's file, without using its stamp.

        Raises MissingModelError if it is not on this machine, BadModelError if it has changed.
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
            raise BadModelError(f"{path}: damaged or replaced; reinstall bgx")
        return ModelFile(entry, path, f"sha256:{digests.sha256}", "builtin")

    def _own(self, name: str) -> Path:
        return self.models / f"{name}.onnx"

    def _record(self, name: str) -> Path:
        return self.models / f"{name}.json"

    def _describe_own(
        self, name: str, published: Mapping[str, ModelEntry]
    ) -> dict[str, Any] | None:
        """The entry of the file that is stored under a name, as a table; None if unknown."""
        if files.is_file(self._record(name)):
            try:
                return _read_record(self._record(name))[0]
            except BadModelError:
                return None
        return _table(published[name]) if name in published else None

    def _check_own(self, entry: ModelEntry, path: Path, *, trust_stamp: bool = True) -> ModelFile:
        # The file is read before its record: `add` writes them in the opposite order.
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
            # The user's own name: only the record has its settings.
            entry = entry_from_table(entry.name, fitting[0], record)
        return ModelFile(entry, path, f"sha256:{digests.sha256}", "added" if added else "fetched")

    def _digests(self, path: Path, *, trust_stamp: bool = True) -> Digests:
        return read_digests(path, self.folder / "stamps", trust_stamp=trust_stamp)


def _read_recent(note: Path) -> bytes | None:
    """The note's content if it was written less than RETRY_S ago."""
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
    """The entry of an added file and, if there was one, of the file that it replaced."""
    try:
        table = json.loads(path.read_bytes())
        before = table.pop(_BEFORE, None)
    except (OSError, ValueError, AttributeError, TypeError):
        raise BadModelError(f"{path}: damaged; run: bgx models add {path.stem} FILE.onnx") from None
    return [table, before] if isinstance(before, dict) else [table]

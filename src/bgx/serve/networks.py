"""The networks that a server offers; each is loaded at its first request."""

from __future__ import annotations

import hashlib
import threading
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import bgx
from bgx.machine import count_cores, memory_limit, memory_used
from bgx.model.opening import open_session
from bgx.model.store import Store
from bgx.run.engine import Engine
from bgx.run.memory import plan_memory
from bgx.serve.requests import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable

    from bgx.model.session import Session
    from bgx.model.store import ModelFile
    from bgx.serve.settings import ServeSettings

_MEMORY_PER_BYTE = 3
"""Memory to load a network, per byte of its file: weights, the runtime's copy, and loading."""


_LIBRARIES = (
    *("pillow", "pillow-heif", "simplejpeg", "numpy", "isal"),
    *("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-ep-webgpu"),
    "openvino",
)
"""Packages that decode, compute and encode, by their names on the package index."""


class Networks:
    """The networks of the settings by name. Thread-safe."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._store = Store(settings.model_files)
        self._opened: dict[str | None, Opened] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Names that a request may use, the default first."""
        default = self._settings.models[0]
        first = self._opened[default].name if default in self._opened else default
        return [name for name in (first, *self._settings.models[1:]) if name is not None]

    def choose(self, name: str | None) -> str | None:
        """The network for a request, as the settings name it. name: None for the default.

        Raises Refusal for a network that is not offered.
        """
        models = self._settings.models
        if name is None or name in models:
            return models[0] if name is None else name
        if models[0] in self._opened and name == self._opened[models[0]].name:
            return models[0]
        raise Refusal(
            400,
            "unknown-model",
            f"model {name[:40]}: not offered here; use one of {', '.join(self.names)}",
        )

    def get(self, model: str | None) -> Opened | None:
        """The network, if it is loaded; never waits."""
        return self._opened.get(model)

    def open(self, model: str | None) -> Opened:
        """Load the network unless it is loaded. model: as returned by :meth:`choose`.

        Raises ModelError and DeviceError; Refusal if there is not enough memory for it.
        """
        if opened := self.get(model):
            return opened  # without the lock: another network may be loading for minutes
        with self._lock:
            if model not in self._opened:
                self._opened[model] = self._load(model)
            return self._opened[model]

    def close(self) -> None:
        """Finish what is in work."""
        for opened in self._opened.values():
            opened.engine.close()

    def _load(self, model: str | None) -> Opened:
        file = self._store.resolve(model, self._store.registry())
        if self._opened and not _has_room(file):
            raise Refusal(503, "no-memory", f"There is no memory left to load {file.entry.name}")
        device = self._settings.device
        session = open_session(file, device, self._store)
        both = session.plan.on_cpu and session.plan.runs > 1 and _has_room(file)
        # A second session, with all cores for a single picture: used while no other is at work.
        single = open_session(file, device, self._store, pictures=1) if both else session
        # The networks share the memory that one alone would have.
        memory = plan_memory(device.workers or count_cores(), file.entry.largest)
        engine = Engine(
            lambda alone: single if alone else session,
            workers=device.workers,
            memory=memory // len(self._settings.models),
            both=both,
        )
        return Opened(session, engine, file.digest)


def _has_room(file: ModelFile) -> bool:
    """Whether there is enough memory for one more session of this network."""
    return memory_used() + _MEMORY_PER_BYTE * file.path.stat().st_size <= memory_limit()


class Opened:
    """A loaded network with its engine. digest: of its file.

    identity: JSON values that determine its output.
    """

    def __init__(self, session: Session, engine: Engine, digest: str) -> None:
        self.name = session.entry.name
        self.device: str = session.device
        self.engine = engine
        self.identity: dict[str, Any] = {
            "network": digest,
            "feed": repr(session.entry.feed),
            "precision": session.precision,
            "device": session.device,
        }


def code_fingerprint() -> str:
    """A digest of the code that determines results: bgx's and that of the libraries it uses.

    It is part of every key in the cache, so that no version serves results of another one.
    """
    digest = hashlib.sha256(bgx.__version__.encode())
    for library in _LIBRARIES:
        try:
            digest.update(f"{library} {version(library)}\n".encode())
        except ModuleNotFoundError:
            continue
    for room in ("image", "model", "run"):
        for name, content in sorted(_read_code(files("bgx") / room)):
            digest.update(name.encode() + b"\n" + content)
    return digest.hexdigest()


def _read_code(folder: Traversable) -> Iterator[tuple[str, bytes]]:
    """Name and content of each module in a folder and below it."""
    for file in folder.iterdir():
        if file.is_dir():
            yield from _read_code(file)
        elif file.name.endswith(".py"):
            yield file.name, file.read_bytes()

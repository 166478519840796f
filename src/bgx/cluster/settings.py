"""Settings of a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bgx.settings import DeviceSettings, ModelSettings


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the worker's operator asked for.

    model: name of the only network that is run; None for any that a task names. devices: one for
    each process. allow: folders and buckets that tasks may read and write in; empty for all buckets
    and no local folder. memory: bytes that one process may use. task_limit: seconds that a task may
    take. level: of the log, as in :mod:`logging`.
    """

    model: str | None
    models: ModelSettings
    devices: tuple[DeviceSettings, ...]
    allow: tuple[str, ...]
    memory: int
    task_limit: float
    level: int

"""What a worker's operator asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bgx.settings import DeviceSettings, ModelSettings


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What the worker's operator asked for.

    model: the one network that is run, None for any that a task names. device: one process each, in
    turn. allow: places below which tasks may read and write; empty for all buckets and no folder.
    memory: bytes that one process may take. task_limit: seconds that a task may take. level: of the
    log.
    """

    model: str | None
    models: ModelSettings
    devices: tuple[DeviceSettings, ...]
    allow: tuple[str, ...]
    memory: int
    task_limit: float
    level: int

"""Opens a session for a model file: chooses the copy that runs, and the device it runs on."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bgx.allocator import release_memory
from bgx.errors import (
    BadModelError,
    DeviceUnavailableError,
    MissingModelError,
    NoMemoryError,
)
from bgx.machine import count_cores
from bgx.model.engines import plan_engines
from bgx.model.mapped import remove_mapped
from bgx.model.optimize import copies
from bgx.model.prepared import find_prepared
from bgx.model.providers import (
    explain_conflict,
    explain_no_gpu,
    explain_no_memory,
    find_flavours,
    list_providers,
)
from bgx.model.session import Session
from bgx.threads import begin, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bgx.model.engines import EnginePlan
    from bgx.model.store import ModelFile, Store
    from bgx.settings import DeviceSettings

log = logging.getLogger(__name__)


class PendingSession:
    """A session that is being opened on another thread.

    `entry` is available at once. Everything else waits for the session, and raises whatever
    :func:`open_session` raised. If no thread can be started, the session is opened at once.
    """

    def __init__(
        self, file: ModelFile, device: DeviceSettings, store: Store, *, pictures: int | None = None
    ) -> None:
        self.entry = file.entry
        self._opening = begin(partial(open_session, file, device, store, pictures=pictures), "open")

    def wait(self) -> Session:
        """Wait for the session."""
        return wait_for(self._opening)

    @property
    def plan(self) -> EnginePlan:
        """How the network is run."""
        return self.wait().plan

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Like :meth:`Session.run`."""
        return self.wait().run(batch)


def open_session(
    file: ModelFile, device: DeviceSettings, store: Store, *, pictures: int | None = None
) -> Session:
    """Load a model file on the requested device; ``auto`` is the best device that works.

    If there is an int8 copy for this CPU, or an fp16 copy for this GPU, it is used unless fp32 is
    requested. pictures: how many will be cut out, None if unknown; a single one gets all cores.
    Raises RuntimeMissingError, DeviceUnavailableError, NoMemoryError, BadModelError, and
    MissingModelError if a copy is requested and there is none.
    """
    if device.precision == "int8" and device.kind == "auto":
        device = replace(device, device="cpu")
    plans = _list_plans(file, device, store, pictures)
    if plans[0].provider == "TensorrtExecutionProvider":
        with suppress(OSError):  # without the folder, TensorRT builds its engines again each time
            store.engines.mkdir(parents=True, exist_ok=True)
    try:
        session = _open_first(plans, file, device, store)
    except MemoryError:
        raise NoMemoryError(explain_no_memory(str(file.shown))) from None
    release_memory()
    log.info(
        "%s in %s on %s: %d at once, %d threads each, in batches of %d",
        *(file.shown, session.precision, session.device),
        *(session.plan.runs, session.plan.threads, session.plan.batch_size),
    )
    return session


def _list_plans(
    file: ModelFile, device: DeviceSettings, store: Store, pictures: int | None
) -> list[EnginePlan]:
    """The plans to try, best first. Raises RuntimeMissingError, DeviceUnavailableError."""
    available = list_providers([device.kind])
    conflict = explain_conflict(find_flavours())
    width, height = file.entry.largest
    if file.entry.free:
        # Pictures of different sizes cannot be in one batch.
        device = replace(device, batch_size=1)
    try:
        plans = plan_engines(
            device,
            available,
            count_cores(),
            pictures=pictures,
            cache=store.engines,
            pixels=width * height,
        )
    except DeviceUnavailableError:
        if conflict:
            raise DeviceUnavailableError(f"--device {device.device}: {conflict}") from None
        raise
    if device.precision == "fp16":
        plans = [plan for plan in plans if not plan.on_cpu]
        if not plans:
            raise DeviceUnavailableError(explain_no_gpu())
    if conflict:
        log.warning("%s", conflict)
    return plans


def _open_first(
    plans: Sequence[EnginePlan], file: ModelFile, device: DeviceSettings, store: Store
) -> Session:
    """Open the first plan whose device works; if none does, the last one's error is raised."""
    *others, last = plans
    for plan in others:
        try:
            return _open(plan, file, device, store)
        except DeviceUnavailableError as error:
            log.info("%s", error)
    return _open(last, file, device, store)


def _open(plan: EnginePlan, file: ModelFile, device: DeviceSettings, store: Store) -> Session:
    copy = _find_copy(file, device, store, plan)
    if copy is None:
        return _open_float32(plan, file, store)
    precision: Literal["int8", "fp16"] = "int8" if plan.on_cpu else "fp16"
    return Session(copy, plan, file.entry, name=str(copy), output=0, precision=precision)


def _open_float32(plan: EnginePlan, file: ModelFile, store: Store) -> Session:
    """Open the network's prepared copy; if it is damaged, it is made again."""
    entry, for_cpu = file.entry, plan.device == "cpu"
    name = str(file.shown)
    source, output = find_prepared(file, store, for_cpu=for_cpu)
    try:
        return Session(source, plan, entry, name=name, output=output)
    except BadModelError as error:
        if not isinstance(source, Path) or source == file.path:
            raise
        log.warning("%s: damaged and made again (%s)", source, error)
    try:
        remove_mapped(source)
    except OSError:  # the folder belongs to another user
        source, output = file.path, entry.output
    else:
        source, output = find_prepared(file, store, for_cpu=for_cpu)
    return Session(source, plan, entry, name=name, output=output)


def _find_copy(
    file: ModelFile, device: DeviceSettings, store: Store, plan: EnginePlan
) -> Path | None:
    """The int8 or fp16 copy to use instead of float32; None if there is none."""
    if device.precision == "fp32":
        return None
    gpu = None if plan.on_cpu else plan.device
    found = copies.find(file, store, gpu)
    if found is None and device.precision != "auto":
        raise MissingModelError(
            f"{file.entry.name}: no {device.precision} copy of it passed on {gpu or 'this machine'}"
            f"; run: bgx models optimize {file.entry.name} --precision {device.precision} "
            f"--calibrate FOLDER{f' --device {gpu}' if gpu else ''}"
        )
    return found

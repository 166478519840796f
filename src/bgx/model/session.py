"""A network ready to run: pictures' tensors in, mattes out."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bgx.errors import (
    BadModelError,
    DeviceUnavailableError,
    InferenceError,
    MissingModelError,
)
from bgx.files import remove_leftovers, write_whole
from bgx.machine import count_cores
from bgx.model import files, optimized
from bgx.model.engines import EnginePlan, plan_engines
from bgx.model.prepare import PREPARE_VERSION, DoesNotFit, prepare
from bgx.model.providers import (
    explain_conflict,
    explain_no_gpu,
    find_flavours,
    list_providers,
    one_line,
    runtime_errors,
    start,
)
from bgx.threads import begin, wait_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bgx.model.registry import ModelEntry
    from bgx.model.store import ModelFile, Store
    from bgx.settings import DeviceSettings

log = logging.getLogger(__name__)

PREPARED_TOLERANCE = 1e-4
"""Largest difference allowed between a prepared copy and the original, of a matte in 0..1."""


class Session:
    """One network on its device or devices. :meth:`run` may be called from any number of threads.

    Of them `plan.runs` run the network at once, each on a device that is free, the others wait.

    entry: how pictures are fed. plan: how the network runs; `plan.batch_size` is the most pictures
    of one Run. device: label, ``cpu`` or ``cuda:0``. provider: ONNX Runtime's name of what really
    runs it. precision: ``fp32``, ``int8`` or ``fp16``.
    """

    def __init__(
        self,
        source: Path | bytes,
        plan: EnginePlan,
        entry: ModelEntry,
        *,
        name: str,
        output: int,
        precision: Literal["fp32", "int8", "fp16"] = "fp32",
    ) -> None:
        """source: the network's file. name: what messages call it. output: index of the matte.

        Raises DeviceUnavailableError when the plan's provider does not load, BadModelError when the
        file is not a network that is fed as `entry` says.
        """
        engines = [start(source, part, name) for part in plan.parts or (plan,)]
        self._input, fixed = _check_input(engines[0], entry, name)
        self._output = _check_output(engines[0], output, name)
        self._name = name
        self._free: SimpleQueue[Any] = SimpleQueue()
        for turn in range(plan.runs):
            self._free.put(engines[turn % len(engines)])
        self._fixed_batch = plan.fixed_batch or fixed is not None
        self.entry = entry
        self.plan = plan if fixed is None else replace(plan, batch_size=fixed)
        self.provider: str = engines[0].get_providers()[0]
        self.device = plan.device
        self.precision = precision

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Mattes (n, height, width) of a batch (n, 3, height, width), C-contiguous.

        Values are the network's after the entry's activation, not stretched. A picture's matte does
        not depend on the others of its batch. Raises InferenceError; BadModelError when the network
        does not give one matte per picture.
        """
        size = self.plan.batch_size
        mattes = [self._run(batch[first : first + size]) for first in range(0, len(batch), size)]
        if not mattes:
            width, height = self.entry.input
            return np.empty((0, height, width), np.float32)
        return mattes[0] if len(mattes) == 1 else np.concatenate(mattes)

    def _run(self, chunk: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(chunk)
        size = 1 if count == 1 and not self._fixed_batch else self.plan.batch_size
        if count < size:
            # A GPU chooses its kernels anew for every shape it meets.
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - count, axis=0)])
        feed = {self._input: np.ascontiguousarray(chunk, np.float32)}
        engine = self._free.get()
        try:
            [output] = engine.run([self._output], feed)
        except runtime_errors() as error:
            raise InferenceError(
                f"{self._name} failed on {self.device}: {one_line(error)}"
            ) from None
        finally:
            self._free.put(engine)
        if output.ndim == 4 and output.shape[1] == 1:
            output = output[:, 0]
        if output.ndim != 3 or len(output) != size:
            raise BadModelError(
                f"{self._name}: output {self.entry.output} is {output.shape}, not one matte per "
                "picture; set `output` of its table in the registry"
            )
        mattes = np.ascontiguousarray(output[:count], np.float32)
        if not np.isfinite(mattes).all():
            raise InferenceError(f"{self._name} gave values that are no numbers on {self.device}")
        if self.entry.activation == "sigmoid":
            # 1 / (1 + exp(-x)) that cannot overflow.
            mattes = 0.5 * (1.0 + np.tanh(0.5 * mattes))
        return mattes


class PendingSession:
    """A session that is being opened on a thread of its own while the caller gets ready.

    `entry` is known at once; all else waits, and raises what :func:`open_session` raised.
    """

    def __init__(
        self, file: ModelFile, device: DeviceSettings, store: Store, *, pictures: int | None = None
    ) -> None:
        self.entry = file.entry
        self._opening = begin(partial(open_session, file, device, store, pictures=pictures), "open")

    def wait(self) -> Session:
        """The session, opened."""
        return wait_for(self._opening)

    @property
    def plan(self) -> EnginePlan:
        """How the network runs."""
        return self.wait().plan

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """As :meth:`Session.run`."""
        return self.wait().run(batch)


def open_session(
    file: ModelFile, device: DeviceSettings, store: Store, *, pictures: int | None = None
) -> Session:
    """Load a model file on the device asked for, ``auto`` on the best that really loads.

    Unless float32 is asked for, its 8-bit copy on a CPU and its half-precision copy on a GPU take
    its place where they passed on this device.
    pictures: how many are to be done, None where unknown; one alone has all cores to itself.
    Raises RuntimeMissingError, DeviceUnavailableError, BadModelError, and MissingModelError where
    a copy is asked for and there is none.
    """
    if device.precision == "int8" and device.kind == "auto":
        device = replace(device, device="cpu")
    available = list_providers([device.kind])
    conflict = explain_conflict(find_flavours())
    width, height = file.entry.input
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
    if plans[0].provider == "TensorrtExecutionProvider":
        with suppress(OSError):  # then they are built anew each time
            store.engines.mkdir(parents=True, exist_ok=True)

    def load(plan: EnginePlan) -> Session:
        copy = _find_copy(file, device, store, plan)
        if copy is not None:
            precision: Literal["int8", "fp16"] = "int8" if plan.on_cpu else "fp16"
            return Session(copy, plan, file.entry, name=str(copy), output=0, precision=precision)
        return _open_float32(file, store, plan)

    for plan in plans[:-1]:
        try:
            session = load(plan)
            break
        except DeviceUnavailableError as error:
            log.info("%s", error)
    else:
        session = load(plans[-1])
    log.info(
        "%s in %s on %s: %d at once, %d threads each, in batches of %d",
        *(file.path, session.precision, session.device),
        *(session.plan.runs, session.plan.threads, session.plan.batch_size),
    )
    return session


def _open_float32(file: ModelFile, store: Store, plan: EnginePlan) -> Session:
    """The network's prepared copy on a plan; a copy that is damaged is made anew."""
    entry, name, for_cpu = file.entry, str(file.path), plan.device == "cpu"
    source, output = _prepared(file, store, for_cpu=for_cpu)
    try:
        return Session(source, plan, entry, name=name, output=output)
    except BadModelError as error:
        if not isinstance(source, Path) or source == file.path:
            raise
        log.warning("%s: damaged, made anew (%s)", source, error)
    try:
        source.unlink(missing_ok=True)
    except OSError:  # in a folder that is another user's
        source, output = file.path, entry.output
    else:
        source, output = _prepared(file, store, for_cpu=for_cpu)
    return Session(source, plan, entry, name=name, output=output)


def _find_copy(
    file: ModelFile, device: DeviceSettings, store: Store, plan: EnginePlan
) -> Path | None:
    """The copy to run in place of float32."""
    if device.precision == "fp32":
        return None
    gpu = None if plan.on_cpu else plan.device
    found = optimized.find(file, store, gpu)
    if found is None and device.precision != "auto":
        raise MissingModelError(
            f"{file.entry.name}: no {device.precision} copy of it passed on {gpu or 'this machine'}"
            f"; run: bgx models optimize {file.entry.name} --precision {device.precision} "
            f"--calibrate FOLDER{f' --device {gpu}' if gpu else ''}"
        )
    return found


def read_prepared(file: ModelFile, store: Store) -> bytes:
    """The prepared copy of a network. Raises BadModelError where none can be made."""
    source, _ = _prepared(file, store, for_cpu=False)
    if source == file.path:
        raise BadModelError(f"{file.path}: its graph is not of the form that bgx can prepare")
    return source if isinstance(source, bytes) else source.read_bytes()


def check_network(path: Path, entry: ModelEntry, name: str) -> None:
    """Run a file once as `entry` says. Raises BadModelError when it is no such network."""
    session = Session(path, _check_plan(1), entry, name=name, output=entry.output)
    try:
        session.run(_noise(1, entry))
    except InferenceError as error:
        raise BadModelError(str(error)) from None


def _prepared(file: ModelFile, store: Store, *, for_cpu: bool) -> tuple[Path | bytes, int]:
    """The network to run and which of its outputs is the matte.

    That is the prepared copy, made once and kept, or the original where the recipe does not fit.
    """
    entry = file.entry
    stem = f"{file.digest.partition(':')[2]}-{entry.output}-v{PREPARE_VERSION}"
    copy = store.prepared / f"{stem}{'-cpu' if for_cpu else ''}.onnx"
    refusal = store.prepared / f"{stem}.txt"
    if files.is_file(copy):
        return copy, 0
    try:
        if files.is_file(refusal):
            raise DoesNotFit(refusal.read_text(encoding="utf-8", errors="replace"))
        content = prepare(file.path, entry.output, for_cpu=for_cpu)
        _compare(content, file)
    except (DoesNotFit, InferenceError) as reason:
        log.debug("%s: used as it is: %s", file.path, reason)
        # A Run that failed may have lacked memory; the next one may not.
        if isinstance(reason, DoesNotFit):
            _keep(refusal, str(reason).encode())
        return file.path, entry.output
    return (copy if _keep(copy, content) else content), 0


def _keep(path: Path, content: bytes) -> bool:
    """Write a file named by what is in it; whether it is there afterwards."""
    if not files.is_file(path):
        try:
            remove_leftovers(path.parent)
            write_whole(path, content)
        except OSError as error:
            log.debug("%s: not kept: %s", path, error)
    return files.is_file(path)


def _compare(copy: bytes, file: ModelFile) -> None:
    """Raise DoesNotFit unless a batch of two gives in the copy what each gives in the original.

    Raises InferenceError too.
    """
    entry, name = file.entry, str(file.path)
    batch = _noise(2, entry)
    original = Session(file.path, _check_plan(1), entry, name=name, output=entry.output)
    try:
        wanted = original.run(batch)
        given = Session(copy, _check_plan(2), entry, name="the copy", output=0).run(batch)
    except BadModelError as error:
        raise DoesNotFit(str(error)) from None
    difference = float(np.abs(given - wanted).max())
    if difference > PREPARED_TOLERANCE:
        raise DoesNotFit(f"the copy's mattes differ from the original's by {difference:.2g}")


def _noise(count: int, entry: ModelEntry) -> NDArray[np.float32]:
    width, height = entry.input
    return np.random.default_rng(0).standard_normal((count, 3, height, width), np.float32)


def _check_plan(batch_size: int) -> EnginePlan:
    # Without pattern and reuse: a check must not take more memory than the pictures will.
    return EnginePlan(
        "cpu",
        threads=count_cores(),
        batch_size=batch_size,
        memory_pattern=False,
        memory_reuse=False,
    )


def _check_input(engine: Any, entry: ModelEntry, name: str) -> tuple[str, int | None]:
    """Name of the network's input and the batch it is fixed at, None where that is free."""
    inputs = engine.get_inputs()
    if len(inputs) != 1:
        raise BadModelError(f"{name}: takes {len(inputs)} inputs; bgx runs networks of one")
    [first] = inputs
    if first.type != "tensor(float)":
        raise BadModelError(f"{name}: takes {first.type}; bgx feeds float32: export it so")
    width, height = entry.input
    shape = first.shape
    if len(shape) != 4 or any(
        isinstance(side, int) and side != wanted
        for side, wanted in zip(shape[1:], (3, height, width), strict=True)
    ):
        raise BadModelError(
            f"{name}: takes {shape}, not [batch, 3, {height}, {width}]; give it a table with its "
            "own `input` in a registry file (BGX_MODELS)"
        )
    return first.name, shape[0] if isinstance(shape[0], int) else None


def _check_output(engine: Any, output: int, name: str) -> str:
    outputs = engine.get_outputs()
    if output >= len(outputs):
        raise BadModelError(
            f"{name}: has {len(outputs)} outputs, numbered from 0, and no number {output}; "
            "set `output` of its table in the registry"
        )
    return str(outputs[output].name)

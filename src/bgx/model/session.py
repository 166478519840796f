"""A network ready to run: pictures' tensors in, mattes out."""

from __future__ import annotations

import logging
import threading
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bgx.errors import BadModelError, DeviceUnavailableError, InferenceError
from bgx.model import files
from bgx.model.prepare import PREPARE_VERSION, DoesNotFit, prepare
from bgx.model.providers import (
    EnginePlan,
    count_cores,
    explain_conflict,
    find_flavours,
    load_runtime,
    one_line,
    plan_engines,
    runtime_errors,
    start,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from bgx.model.registry import ModelEntry
    from bgx.model.store import ModelFile, Store
    from bgx.settings import DeviceSettings

log = logging.getLogger(__name__)

PREPARED_TOLERANCE = 1e-4
"""Largest difference allowed between a prepared copy and the original, of a matte in 0..1."""


class Session:
    """One network on one device. :meth:`run` may be called from many threads at once.

    entry: how pictures are fed. plan: how it runs; its `batch_size` is the most pictures that one
    Run of the network takes. device: label, ``cpu`` or ``cuda:0``. provider: ONNX Runtime's name of
    what really runs it.
    """

    def __init__(self, engine: Any, entry: ModelEntry, plan: EnginePlan, name: str) -> None:
        """engine: an ``onnxruntime.InferenceSession``. name: what messages call the network.

        Raises BadModelError when the engine's signature is not what `entry` says.
        """
        self._input, fixed = _check_input(engine, entry, name)
        self._output = _check_output(engine, entry, name)
        self._engine = engine
        self._name = name
        self._lock = threading.Lock() if plan.serial else nullcontext()
        self.entry = entry
        self.plan = plan if fixed is None else replace(plan, batch_size=fixed)
        self.provider: str = engine.get_providers()[0]
        self.device = plan.device

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
        count, size = len(chunk), self.plan.batch_size
        if count < size:
            # A GPU chooses its kernels anew for every shape it meets.
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - count, axis=0)])
        feed = {self._input: np.ascontiguousarray(chunk, np.float32)}
        try:
            with self._lock:
                [output] = self._engine.run([self._output], feed)
        except runtime_errors() as error:
            raise InferenceError(
                f"{self._name} failed on {self.device}: {one_line(error)}"
            ) from None
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


def open_session(
    file: ModelFile, device: DeviceSettings, store: Store, *, pictures: int | None = None
) -> Session:
    """Load a model file on the device asked for, ``auto`` on the best that really loads.

    pictures: how many are to be done, None where unknown; one alone has all cores to itself.
    Raises RuntimeMissingError, DeviceUnavailableError and BadModelError.
    """
    available = load_runtime().get_available_providers()
    conflict = explain_conflict(find_flavours())
    if conflict:
        log.warning("%s", conflict)
    width, height = file.entry.input
    plans = plan_engines(
        device,
        available,
        count_cores(),
        pictures=pictures,
        cache=store.engines,
        pixels=width * height,
    )
    if plans[0].provider == "TensorrtExecutionProvider":
        store.engines.mkdir(parents=True, exist_ok=True)
    source = _prepared(file, store)
    for plan in plans[:-1]:
        try:
            return _open(source, file, plan)
        except DeviceUnavailableError as error:
            log.info("%s", error)
    return _open(source, file, plans[-1])


def check_network(path: Path, entry: ModelEntry) -> None:
    """Run a file once as `entry` says. Raises BadModelError when it is no such network."""
    plan = _cpu_plan(batch_size=1)
    session = Session(start(path, plan), entry, plan, str(path))
    try:
        session.run(_noise(1, entry))
    except InferenceError as error:
        raise BadModelError(f"{path}: does not run: {error}") from None


def _open(source: Path | bytes, file: ModelFile, plan: EnginePlan) -> Session:
    session = Session(start(source, plan), file.entry, plan, str(file.path))
    log.debug("%s runs on %s: %s", file.path, session.provider, session.plan)
    return session


def _prepared(file: ModelFile, store: Store) -> Path | bytes:
    """The network's prepared copy, made once; the original where the recipe does not fit."""
    digest = file.digest.partition(":")[2]
    stem = f"{digest}-{file.entry.output}-v{PREPARE_VERSION}"
    copy = store.prepared / f"{stem}.onnx"
    refusal = store.prepared / f"{stem}.txt"
    if copy.is_file():
        return copy
    if refusal.is_file():
        reason = refusal.read_text(encoding="utf-8")
        log.debug("%s: used as it is, one picture a Run: %s", file.path, reason)
        return file.path
    kept, content = copy, b""
    try:
        content = prepare(file.path, file.entry.output)
        _compare(content, file)
    except DoesNotFit as error:
        log.debug("%s: used as it is, one picture a Run: %s", file.path, error)
        kept, content = refusal, str(error).encode()
    try:
        files.write(kept, content)
    except OSError as error:
        log.debug("%s: not kept: %s", kept, error)
        return content if kept == copy else file.path
    return kept if kept == copy else file.path


def _compare(copy: bytes, file: ModelFile) -> None:
    """Raise DoesNotFit unless a batch of two gives in the copy what each gives in the original."""
    batch = _noise(2, file.entry)
    pair, single = _cpu_plan(batch_size=2), _cpu_plan(batch_size=1)
    prepared = Session(start(copy, pair), file.entry, pair, "the prepared copy").run(batch)
    original = Session(start(file.path, single), file.entry, single, str(file.path)).run(batch)
    difference = float(np.abs(prepared - original).max())
    if not difference <= PREPARED_TOLERANCE:
        raise DoesNotFit(f"the copy differs from the original by {difference:.2g}")


def _noise(count: int, entry: ModelEntry) -> NDArray[np.float32]:
    width, height = entry.input
    return np.random.default_rng(0).standard_normal((count, 3, height, width), np.float32)


def _cpu_plan(batch_size: int) -> EnginePlan:
    return EnginePlan(
        device="cpu",
        providers=(("CPUExecutionProvider", {}),),
        threads=count_cores(),
        batch_size=batch_size,
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


def _check_output(engine: Any, entry: ModelEntry, name: str) -> str:
    outputs = engine.get_outputs()
    if entry.output >= len(outputs):
        # The prepared copy has the one output left that the entry asks for.
        if len(outputs) == 1:
            return str(outputs[0].name)
        raise BadModelError(
            f"{name}: has {len(outputs)} outputs, and no number {entry.output}; set `output` of "
            "its table in the registry"
        )
    return str(outputs[entry.output].name)

"""Finds out which parts of ONNX Runtime are installed and really work."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bgx.errors import BadModelError, DeviceError, DeviceUnavailableError, RuntimeMissingError
from bgx.model.engines import AUTO, PROVIDERS_BY_DEVICE, plan_engines
from bgx.model.providers import (
    explain_conflict,
    explain_undelivered,
    find_flavours,
    list_providers,
    load_runtime,
    one_line,
    runtime_errors,
    start,
)
from bgx.settings import DeviceSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A 1 x 1 convolution, opset 11: the smallest network that makes providers load their libraries.
_PROBE = (
    b'\x08\x06:c\n\x0f\n\x01x\n\x01w\x12\x01y"\x04Conv\x12\x01p*\x13\x08\x01\x08\x01\x08\x01\x08\x01'
    b'\x10\x01"\x04\x00\x00\x00@B\x01wZ\x1b\n\x01x\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n\x02'
    b"\x08\x01\n\x02\x08\x02\n\x02\x08\x02b\x1b\n\x01y\x12\x16\n\x14\x08\x01\x12\x10\n\x02\x08\x01\n"
    b"\x02\x08\x01\n\x02\x08\x02\n\x02\x08\x02B\x04\n\x00\x10\x0b"
)


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """What ``bgx info`` shows about ONNX Runtime.

    flavours: installed distributions and their versions. version: of the imported module; None if
    there is none. listed: providers that it lists. loads: kinds of devices that really run a
    network. fails: listed kinds of devices that do not, with the reason. auto: the device that
    ``auto`` uses, or None. why: the reason for it. trouble: what has to be repaired, or None.
    """

    flavours: Mapping[str, str]
    version: str | None
    listed: tuple[str, ...]
    loads: tuple[str, ...]
    fails: Mapping[str, str]
    auto: str | None
    why: str
    trouble: str | None


def inspect_runtime() -> RuntimeReport:
    """Try every provider with a network of one node. Problems found are reported, not raised."""
    flavours = find_flavours()
    trouble = explain_conflict(flavours)
    try:
        runtime = load_runtime()
    except RuntimeMissingError as error:
        return RuntimeReport(flavours, None, (), (), {}, None, str(error), str(error))
    listed = list_providers(PROVIDERS_BY_DEVICE)
    loads: list[str] = []
    fails: dict[str, str] = {}
    for kind, providers in PROVIDERS_BY_DEVICE.items():
        if not set(providers).intersection(listed):
            continue
        try:
            _probe(kind, listed)
        except (DeviceError, BadModelError) as error:
            fails[kind] = str(error)
        else:
            loads.append(kind)
    auto = next((kind for kind in AUTO if kind in loads), None)
    return RuntimeReport(
        flavours=flavours,
        version=runtime.__version__,
        listed=tuple(listed),
        loads=tuple(loads),
        fails=fails,
        auto=auto,
        why=_why(auto, fails),
        trouble=trouble,
    )


def _why(auto: str | None, fails: Mapping[str, str]) -> str:
    if auto is None:
        return "no device runs a network"
    passed = [kind for kind in AUTO[: AUTO.index(auto)] if kind in fails]
    if passed:
        return f"the best that loads; {', '.join(passed)} listed but not loading"
    return "no GPU is listed" if auto == "cpu" else "the best that is listed"


def _probe(kind: str, listed: Sequence[str]) -> None:
    import numpy as np

    with tempfile.TemporaryDirectory(prefix="bgx-") as cache:
        [plan] = plan_engines(DeviceSettings(kind), listed, 1, pictures=1, cache=Path(cache))
        engine = start(_PROBE, plan, "the probe")
        try:
            engine.run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
        except runtime_errors() as error:
            raise DeviceUnavailableError(explain_undelivered(plan, one_line(error))) from None

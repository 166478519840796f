"""Every test runs as if bgx had just been installed: no settings, an empty home, no networks."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from support.networks import tiny_network
from support.services import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = Path(__file__).parents[2] / "shared"
WEIGHTS = SHARED / "models" / "u2netp.onnx"

settings.register_profile(
    "bgx",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],  # of a machine that is busy, too
)
settings.load_profile("bgx")


@pytest.fixture(autouse=True)
def _heeds_signals() -> Iterator[None]:
    """A shell ignores Ctrl-C in the background, and nohup SIGHUP; children inherit that."""
    hangup = getattr(signal, "SIGHUP", signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, hangup)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(hangup, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _fresh_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name in list(os.environ):
        if name.startswith(("BGX_", "XDG_", "REMBG_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("U2NET_HOME", str(home / "u2net"))
    monkeypatch.setenv("BGX_HOME", str(home / "bgx"))
    # What a command sets up for a process of its own.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    logger = logging.getLogger("bgx")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def _stocked_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BGX_HOME where a tiny network lies under the name of u2netp, prepared."""
    from bgx.model.opening import open_session
    from bgx.model.store import Store
    from bgx.model.trial import check_network
    from bgx.settings import DeviceSettings, ModelSettings

    folder = tmp_path_factory.mktemp("stocked")
    store = Store(ModelSettings(folder=folder))
    file = tiny_network(folder / "tiny.onnx")
    added = store.add("u2netp", file, store.registry(), check=check_network)
    open_session(added, DeviceSettings("cpu"), store)
    return folder


@pytest.fixture
def stocked_home(_stocked_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This test has a tiny network under the name of u2netp, and uses it where it names none."""
    monkeypatch.setenv("BGX_HOME", str(_stocked_home))
    monkeypatch.setenv("BGX_MODEL", "u2netp")
    return _stocked_home


@pytest.fixture(scope="module")
def _object_store() -> Iterator[ObjectStore]:
    server = ObjectStore()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def object_store(_object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The environment leads to it; it holds one empty bucket."""
    for name, value in _object_store.environment.items():
        monkeypatch.setenv(name, value)
    _object_store.empty("shop")
    return _object_store


@pytest.fixture
def weights() -> Path:
    """The real u2netp. Only for tests marked ``weights``."""
    return WEIGHTS


@pytest.fixture
def shared() -> Path:
    """The folder of real photos and masks. Only for tests marked ``weights``."""
    return SHARED / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker in item.iter_markers("programs"):
            missing = ", ".join(name for name in marker.args if shutil.which(name) is None)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"{missing} is not installed"))
        if item.get_closest_marker("weights") and not WEIGHTS.is_file():
            item.add_marker(pytest.mark.skip(reason=f"{WEIGHTS} is absent"))


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say how many tests were skipped for each reason."""
    yield
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} tests: {reason}", yellow=True)

"""A real Chromium, driven by its own protocol over pipes: no driver and no library is needed."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import queue
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATIENCE = 240  # of a machine that does much else


class Browser:
    """One tab. Commands are of the Chrome DevTools Protocol."""

    def __init__(self, process: subprocess.Popen[bytes], reading: int, writing: int) -> None:
        self._process, self._writing = process, writing
        self._stream = os.fdopen(reading, "rb")
        self._answers: dict[int, queue.Queue[Any]] = {}
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.messages: list[str] = []
        """Console messages of the page, and errors that the browser reported."""
        self.requests: list[str] = []
        """URLs that the page requested."""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "DOM", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command of the protocol; returns its result."""
        number = next(self._numbers)
        answers: queue.Queue[Any] = queue.Queue()
        self._answers[number] = answers
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._writing, data) :]
        answer = answers.get(timeout=PATIENCE)
        assert "error" not in answer, answer
        return answer.get("result", {})

    def _read(self) -> None:
        rest = b""
        while piece := self._stream.read1(1 << 16):  # type: ignore[union-attr]
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.pop(message["id"]).put(message)
                else:
                    self._hear(message["method"], message["params"])

    def _hear(self, event: str, said: Any) -> None:
        match event:
            case "Runtime.exceptionThrown":
                self.messages.append(json.dumps(said["exceptionDetails"])[:500])
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning"):
                self.messages.append(json.dumps(said["args"])[:500])
            case "Log.entryAdded":
                self.messages.append(said["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])

    def open(self, url: str) -> None:
        """Open a URL, and wait until the page is ready."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.documentElement?.dataset.ready === 'yes'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, f"never: {condition}; {self.messages}"
            time.sleep(0.05)

    def resize(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Set the window's size and prefers-color-scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def drop(self, *files: Path, x: int = 300, y: int = 200) -> None:
        """Drop files on a point of the page."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str, code: int, *, shift: bool = False) -> None:
        """Press a key, given by its name and its key code."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=8 if shift else 0,
                **text,
            )

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a screenshot as a PNG file. whole: of the whole page, not only of the window."""
        given = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(given["data"]))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._writing)
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._stream.close()


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Run headless Chromium. profile: an empty folder."""
    to_read, to_write = os.pipe(), os.pipe()

    def connect() -> None:
        # The browser reads commands from 3 and writes answers to 4. First out of the way of both.
        commands, answers = (os.dup(end) for end in (to_read[0], to_write[1]))
        high = [os.dup2(end, number) for end, number in ((commands, 203), (answers, 204))]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    process = subprocess.Popen(
        [
            *("chromium", "--headless=new", "--no-sandbox", "--remote-debugging-pipe"),
            *("--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync", "--hide-scrollbars"),
            *("--force-color-profile=srgb", f"--user-data-dir={profile}"),
        ],
        preexec_fn=connect,  # noqa: PLW1509 - the only way to give it these two numbers
        pass_fds=(3, 4),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read[0])
    os.close(to_write[1])
    browser = Browser(process, to_write[0], to_read[1])
    try:
        yield browser
    finally:
        browser.close()

"""Fetching a published model file: temporary file, hash, move.

The only room that knows pooch. A machine without internet gets its error within
`FIRST_ANSWER_S` + 1 seconds, whatever part of the connection hangs.
"""

from __future__ import annotations

import errno
import filecmp
import logging
import os
import sys
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from bgx.errors import BadModelError, MissingModelError, ModelError
from bgx.model import files

if TYPE_CHECKING:
    from requests import Response
    from requests.exceptions import RequestException

    from bgx.model.registry import ModelEntry

FIRST_ANSWER_S = 10.0
"""Names, addresses, TLS and redirects together may take this long."""

STALL_S = 15.0
"""A transfer without a byte for this long has stalled."""

_CONNECT_S = 5.0
_CHUNK = 1 << 18
# A protobuf message, which an ONNX file is, cannot be larger.
_LARGEST = 2**31


def fetch(
    entry: ModelEntry,
    folder: Path,
    *,
    mirror: str | None = None,
    progress: bool = False,
    first_answer: float = FIRST_ANSWER_S,
    stall: float = STALL_S,
) -> Path:
    """Download `entry`'s file to ``folder/NAME.onnx`` and return that path.

    The file appears there whole and with the registry's hash, or not at all. mirror: base URL that
    replaces the published one. progress: show a bar on stderr where that is a terminal.
    first_answer, stall: seconds.

    Raises MissingModelError (no URL, no connection, not there), BadModelError (larger than the
    registry says, wrong hash) and ModelError (the folder cannot be written).
    """
    if entry.url is None:
        raise MissingModelError(
            f"{entry.name}: the registry has no address for it; "
            f"run: bgx models add {entry.name} FILE.onnx"
        )
    url = entry.url if mirror is None else f"{mirror.rstrip('/')}/{entry.url.rpartition('/')[2]}"
    shown = _without_login(url)

    import pooch
    import requests

    # pooch announces each download and prints hashes; bgx says what there is to say.
    pooch.get_logger().setLevel(logging.ERROR)
    download = _Download(entry, progress, first_answer, stall)
    target = folder / f"{entry.name}.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.remove_old(folder, ".fetch-*")
        # A folder of its own, so that two processes fetching one file do not meet, and one rename
        # at the end, which every platform does in one step.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as private:
            fetched = pooch.retrieve(
                url, entry.hash, fname=target.name, path=private, downloader=download
            )
            _move(Path(fetched), target)
    except requests.RequestException as error:
        raise MissingModelError(
            f"{entry.name}: cannot be fetched from {shown}: {_cause(error)}; connect to the "
            "internet, set BGX_MODEL_MIRROR, or run: "
            f"bgx models add {entry.name} FILE.onnx"
        ) from None
    except ValueError:
        raise BadModelError(
            f"{entry.name}: {shown} does not have the hash of the registry; nothing was kept; "
            f"try again, or run: bgx models add {entry.name} FILE.onnx"
        ) from None
    except OSError as error:
        cause = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise ModelError(
            f"{folder}: the model file cannot be written: {cause}; "
            "make room or set BGX_HOME to another folder"
        ) from None
    return target


class _Download:
    """What pooch calls to bring one URL into one file."""

    def __init__(
        self, entry: ModelEntry, progress: bool, first_answer: float, stall: float
    ) -> None:
        self._entry = entry
        self._limit = entry.bytes or _LARGEST
        self._progress = progress and sys.stderr is not None and sys.stderr.isatty()
        self._first_answer = first_answer
        self._stall = stall

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        with self._open(url) as response:
            response.raise_for_status()
            announced = response.headers.get("Content-Length", "")
            size = int(announced) if announced.isdigit() else None
            if size is not None and size > self._limit:
                raise self._too_large(url)
            # pooch made it readable by this user alone; anew it is as any other file.
            Path(output_file).unlink()
            with open(output_file, "xb") as file:
                self._copy(response, file, size, url)
                file.flush()
                os.fsync(file.fileno())  # a power cut must not leave the name alone

    def _open(self, url: str) -> Response:
        """Start the request and wait for its headers, no longer than `first_answer`.

        Timeouts of sockets count per address, and none covers the look-up of the name, so the
        request starts in a thread that is left behind when its time is over.
        """
        import requests

        answer: Future[Response] = Future()

        def ask() -> None:
            try:
                response = requests.get(
                    url,
                    stream=True,
                    timeout=(min(_CONNECT_S, self._first_answer), self._stall),
                    headers={"User-Agent": "bgx", "Accept-Encoding": "identity"},
                )
            except requests.RequestException as error:
                answer.set_exception(error)
            except OSError as error:  # a file of certificates that is none
                answer.set_exception(requests.RequestException(str(error)))
            except Exception as error:  # noqa: BLE001 - an address that is none, in many ways
                answer.set_exception(requests.exceptions.InvalidURL(str(error)))
            else:
                answer.set_result(response)

        threading.Thread(target=ask, name="bgx-fetch", daemon=True).start()
        try:
            return answer.result(self._first_answer)
        except TimeoutError:
            answer.add_done_callback(_close)
            raise requests.ConnectTimeout(f"no answer in {self._first_answer:.0f} s") from None

    def _copy(self, response: Response, file: BinaryIO, size: int | None, url: str) -> None:
        from tqdm import tqdm

        with tqdm(
            total=size or self._entry.bytes,
            desc=self._entry.name,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            leave=False,
            disable=not self._progress,
        ) as bar:
            for chunk in response.iter_content(_CHUNK):
                if file.tell() + len(chunk) > self._limit:
                    raise self._too_large(url)
                file.write(chunk)
                bar.update(len(chunk))

    def _too_large(self, url: str) -> BadModelError:
        name, shown = self._entry.name, _without_login(url)
        return BadModelError(
            f"{name}: {shown} is larger than the {self._limit:,} bytes the registry allows; "
            f"nothing was kept; run: bgx models add {name} FILE.onnx"
        )


def _close(late: Future[Response]) -> None:
    if late.exception() is None:
        late.result().close()


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except PermissionError:
        # Windows replaces no file that is open: another process has just fetched the same.
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            raise


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _cause(error: RequestException) -> str:
    """One short line out of the nested messages of requests and urllib3."""
    import requests
    from urllib3.exceptions import ReadTimeoutError

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}".rstrip()
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection (TLS)"
    if isinstance(error, requests.exceptions.ProxyError):
        return "no connection to the proxy"
    if isinstance(error, requests.ConnectTimeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if error.args and isinstance(error.args[0], ReadTimeoutError):
        return "the transfer stalled"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    if isinstance(error, requests.exceptions.InvalidURL):
        return "its address is none"  # whose login must not be shown
    if type(error) is requests.RequestException:
        return str(error).partition("\n")[0]
    return type(error).__name__

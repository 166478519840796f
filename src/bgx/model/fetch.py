"""Downloads a published model file, checks its hash, and moves it to its place.

Without internet access, the error comes within ``FIRST_ANSWER_S`` + 1 seconds, whatever part of the
connection hangs.
"""

from __future__ import annotations

import errno
import filecmp
import logging
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from bgx.errors import BadModelError, MissingModelError, ModelError
from bgx.files import temporary
from bgx.model.files import found
from bgx.threads import begin, wait_for

if TYPE_CHECKING:
    from concurrent.futures import Future

    from requests import Response
    from requests.exceptions import RequestException

    from bgx.model.registry import ModelEntry

FIRST_ANSWER_S = 10.0
"""Time limit for name lookup, connecting, TLS and redirects together, seconds."""

STALL_S = 15.0
"""Time without a byte after which a transfer counts as stalled, seconds."""

_CONNECT_S = 5.0

_LEFT_S = 3600.0
"""Time without a write after which a download counts as left by a killed process, seconds."""

_PRIVATE = ".fetch-"
_CHUNK = 1 << 18
_LARGEST = 2**31
"""Largest ONNX file, bytes: a protobuf message cannot be larger."""


class NoAnswerError(MissingModelError):
    """The server did not answer within the time limit."""


def fetch(
    entry: ModelEntry,
    folder: Path,
    *,
    mirror: str | None = None,
    progress: bool = False,
    first_answer: float | None = None,
    stall: float = STALL_S,
) -> Path:
    """Download the entry's file to ``folder/NAME.onnx`` and return that path.

    The file appears there complete and with the right hash, or not at all. mirror: base URL that
    replaces the published one. progress: show a progress bar if stderr is a terminal. first_answer,
    stall: time limits, seconds; None is FIRST_ANSWER_S.

    Raises MissingModelError (no URL, no connection, not on the server; NoAnswerError after a time
    limit), BadModelError (larger than the registry says, wrong hash) and ModelError (the folder
    cannot be written).
    """
    if entry.url is None or entry.hash is None:
        raise MissingModelError(
            f"{entry.name}: the registry has no URL for it; "
            f"run: bgx models add {entry.name} FILE.onnx"
        )
    url = address_of(entry, mirror)
    shown = _without_login(url)

    import pooch
    import requests

    # pooch logs each download and its hash; bgx has its own messages.
    pooch.get_logger().setLevel(logging.ERROR)
    download = _Download(entry, progress, first_answer or FIRST_ANSWER_S, stall)
    target = folder / f"{entry.name}.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        # Each download has a private folder, so that two processes do not write to one file.
        with (
            tempfile.TemporaryDirectory(prefix=_PRIVATE, dir=folder) as private,
            temporary(folder) as ordinary,
        ):
            fetched = pooch.retrieve(
                url, entry.hash, fname=target.name, path=private, downloader=download
            )
            # pooch's file is readable by its owner only; this one has the umask's permissions.
            Path(fetched).chmod(ordinary.stat().st_mode)
            _move(Path(fetched), target)
    except requests.RequestException as error:
        cause, waited = _explain(error)
        raise (NoAnswerError if waited else MissingModelError)(
            f"{entry.name}: cannot be downloaded from {shown}: {cause}; connect to the internet, "
            f"set BGX_MODEL_MIRROR, or run: bgx models add {entry.name} FILE.onnx"
        ) from None
    except ValueError:
        raise BadModelError(
            f"{entry.name}: {shown} does not have the registry's hash; nothing was kept; "
            f"try again, or run: bgx models add {entry.name} FILE.onnx"
        ) from None
    except OSError as error:
        cause = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise ModelError(
            f"{folder}: the model file cannot be written: {cause}; "
            "make room or set BGX_HOME to another folder"
        ) from None
    return target


def address_of(entry: ModelEntry, mirror: str | None) -> str:
    """The URL that the entry's file is downloaded from. The entry must have a URL."""
    url = entry.url or ""
    return url if mirror is None else f"{mirror.rstrip('/')}/{url.rpartition('/')[2]}"


def _remove_leftovers(folder: Path) -> None:
    """Delete the folders of killed downloads.

    They are recognised by their age, because several machines may share the folder.
    """
    for path in found(folder, f"{_PRIVATE}*"):
        with suppress(OSError):
            newest = max(entry.stat().st_mtime for entry in (path, *path.glob("*")))
            if time.time() - newest > _LEFT_S:
                shutil.rmtree(path)


class _Download:
    """A downloader for pooch, with limits on size and time."""

    def __init__(
        self, entry: ModelEntry, progress: bool, first_answer: float, stall: float
    ) -> None:
        self._entry = entry
        self._limit = entry.bytes or _LARGEST
        self._progress = progress and sys.stderr is not None and sys.stderr.isatty()
        self._first_answer = first_answer
        self._stall = stall

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Download the file. Raises BadModelError if it is too large, RequestException, OSError."""
        with self._open(url) as response:
            response.raise_for_status()
            announced = response.headers.get("Content-Length", "")
            size = int(announced) if announced.isdigit() else None
            if size is not None and size > self._limit:
                raise self._too_large(url)
            with open(output_file, "wb") as file:
                self._copy(response, file, size, url)

    def _open(self, url: str) -> Response:
        """Send the request and wait for the headers, at most `first_answer` seconds.

        The timeout of a socket applies to each of a host's addresses separately, and not to the
        name lookup. So the request is made on a thread that is abandoned after the time limit.
        """
        import requests

        def ask() -> Response:
            try:
                return requests.get(
                    url,
                    stream=True,
                    timeout=(min(_CONNECT_S, self._first_answer), self._stall),
                    headers={"User-Agent": "bgx", "Accept-Encoding": "identity"},
                )
            except requests.RequestException:
                raise
            except OSError as error:  # REQUESTS_CA_BUNDLE names a missing file
                raise requests.RequestException(str(error)) from None
            except Exception as error:  # noqa: BLE001 - many kinds, for a malformed URL
                raise requests.exceptions.InvalidURL(str(error)) from None

        answer = begin(ask, "bgx-fetch")
        try:
            return wait_for(answer, self._first_answer)
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
        # Windows cannot replace an open file; another process may have downloaded the same one.
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            raise


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _explain(error: RequestException) -> tuple[str, bool]:
    """The cause in a few words, and whether a time limit was reached."""
    import requests
    from urllib3.exceptions import ReadTimeoutError

    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = f"{error.response.status_code} {error.response.reason}".rstrip()
        return f"the server answered {status}", False
    if isinstance(error, requests.exceptions.SSLError):
        return "no secure connection (TLS)", False
    if isinstance(error, requests.exceptions.ProxyError):
        return "no connection to the proxy", False
    if isinstance(error, requests.Timeout):
        return "no answer in time", True
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off", False
    if error.args and isinstance(error.args[0], ReadTimeoutError):
        return "the transfer stalled", True
    if isinstance(error, requests.ConnectionError):
        return "no connection", False
    if isinstance(error, requests.exceptions.InvalidURL):
        return "the URL is malformed", False  # not shown: it may contain a password
    if type(error) is requests.RequestException:
        return str(error).partition("\n")[0], False
    return type(error).__name__, False

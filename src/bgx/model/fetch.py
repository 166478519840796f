"""Downloads a published model file: into a folder of its own, then renamed if its hash is right.

The only module that knows pooch, requests and urllib3. Without internet the error comes within
``FIRST_ANSWER_S`` + 1 seconds, whatever part of the connection hangs.
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
"""Looking up the name, connecting, TLS and redirects together may take this long."""

STALL_S = 15.0
"""A transfer without a byte for this long has stalled."""

_CONNECT_S = 5.0

_LEFT_S = 3600.0
"""A download that nothing was written to for so long is left over from a killed process."""

_PRIVATE = ".fetch-"
_CHUNK = 1 << 18
_LARGEST = 2**31
"""An ONNX file is a protobuf message, which cannot be larger."""


class NoAnswerError(MissingModelError):
    """The server, or something on the way to it, let us wait in vain."""


def fetch(
    entry: ModelEntry,
    folder: Path,
    *,
    mirror: str | None = None,
    progress: bool = False,
    first_answer: float | None = None,
    stall: float = STALL_S,
) -> Path:
    """Download `entry`'s file to ``folder/NAME.onnx`` and return that path.

    The file appears there complete and with the registry's hash, or not at all. mirror: base URL
    that replaces the published one. progress: show a bar on stderr if that is a terminal.
    first_answer, stall: seconds; None is FIRST_ANSWER_S.

    Raises MissingModelError (no URL, no connection, not on the server; NoAnswerError after a time
    limit), BadModelError (larger than the registry says, wrong hash) and ModelError (the folder
    cannot be written).
    """
    if entry.url is None or entry.hash is None:
        raise MissingModelError(
            f"{entry.name}: the registry has no address for it; "
            f"run: bgx models add {entry.name} FILE.onnx"
        )
    url = address_of(entry, mirror)
    shown = _without_login(url)

    import pooch
    import requests

    # pooch announces each download and prints hashes; bgx says what there is to say.
    pooch.get_logger().setLevel(logging.ERROR)
    download = _Download(entry, progress, first_answer or FIRST_ANSWER_S, stall)
    target = folder / f"{entry.name}.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        # Two processes that download one file do not meet in a folder of their own.
        with (
            tempfile.TemporaryDirectory(prefix=_PRIVATE, dir=folder) as private,
            temporary(folder) as ordinary,
        ):
            fetched = pooch.retrieve(
                url, entry.hash, fname=target.name, path=private, downloader=download
            )
            # pooch's file is for its owner alone; this one is as the umask says.
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


def address_of(entry: ModelEntry, mirror: str | None) -> str:
    """Where the entry's file is downloaded from. The entry must have a URL."""
    url = entry.url or ""
    return url if mirror is None else f"{mirror.rstrip('/')}/{url.rpartition('/')[2]}"


def _remove_leftovers(folder: Path) -> None:
    """Delete the folders of downloads that were killed.

    By age, since machines may share a folder: who downloads writes all the time.
    """
    for path in found(folder, f"{_PRIVATE}*"):
        with suppress(OSError):
            newest = max(entry.stat().st_mtime for entry in (path, *path.glob("*")))
            if time.time() - newest > _LEFT_S:
                shutil.rmtree(path)


class _Download:
    """What pooch calls to download one model file, with limits of size and time."""

    def __init__(
        self, entry: ModelEntry, progress: bool, first_answer: float, stall: float
    ) -> None:
        self._entry = entry
        self._limit = entry.bytes or _LARGEST
        self._progress = progress and sys.stderr is not None and sys.stderr.isatty()
        self._first_answer = first_answer
        self._stall = stall

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Raises BadModelError for a file that is too large, RequestException and OSError."""
        with self._open(url) as response:
            response.raise_for_status()
            announced = response.headers.get("Content-Length", "")
            size = int(announced) if announced.isdigit() else None
            if size is not None and size > self._limit:
                raise self._too_large(url)
            with open(output_file, "wb") as file:
                self._copy(response, file, size, url)

    def _open(self, url: str) -> Response:
        """Start the request and wait for its headers, no longer than `first_answer`.

        A socket's timeout applies to each address anew, and none covers looking up the name, so the
        request is made in a thread that is abandoned when its time is over.
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
            except OSError as error:  # REQUESTS_CA_BUNDLE names a file that is not there
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
        # Windows does not replace an open file: another process has just downloaded the same.
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            raise


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _explain(error: RequestException) -> tuple[str, bool]:
    """The cause in a few words, and whether a time limit ended the request."""
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
        return "the address is malformed", False  # its text may hold a login
    if type(error) is requests.RequestException:
        return str(error).partition("\n")[0], False
    return type(error).__name__, False

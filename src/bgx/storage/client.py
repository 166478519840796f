"""The clients of buckets: addresses, credentials, repeated requests, errors in words.

Credentials and addresses come from the environment variables that each cloud's own tools use.

A request that fails because of the network or the service is repeated, with growing pauses, for
:data:`_PATIENCE_S` seconds. The first request to a bucket is repeated only for :data:`_FIRST_S`, so
that a wrong address is reported soon.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar, cast
from urllib.parse import urlsplit

from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, InvalidPathError
from obstore.store import AzureStore, GCSStore, S3Store

from bgx.errors import UsageError
from bgx.settings import is_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from obstore.store import ObjectStore

    Service = Callable[..., ObjectStore]

_Answer = TypeVar("_Answer")

log = logging.getLogger(__name__)

_PATIENCE_S = 120.0
"""How long a request is repeated, seconds."""

_FIRST_S = 10.0
"""The same, as long as the service has never answered."""

_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 8.0
"""Pauses between two tries, seconds: the first and the longest; each is twice the one before."""

_TIMEOUT_S = 30
"""Time limit of one try, seconds; longer for large objects."""

_SLOWEST = 200_000
"""Slowest transfer, bytes per second, that keeps within the time limit."""

UNNAMEABLE = (
    "an empty part, . or .. between slashes, or a control character, which bgx cannot ask for"
)

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_METADATA_SERVICE = "169.254.169.254"
"""Address where machines in a cloud get credentials; obstore asks it if the environment has none.
"""

_PASSING = frozenset({408, 425, 429})
"""Status codes below 500 for which another try is worthwhile."""


def _open_s3(bucket: str, **options: Any) -> ObjectStore:
    return S3Store(bucket, **options)


def _open_gcs(bucket: str, **options: Any) -> ObjectStore:
    return GCSStore(bucket, **options)


def _open_azure(container: str, **options: Any) -> ObjectStore:
    # Variables of Azure's own command line that obstore does not read.
    names = {"AZURE_STORAGE_ACCOUNT": "account_name", "AZURE_STORAGE_KEY": "account_key"}
    config = {key: os.environ[name] for name, key in names.items() if os.environ.get(name)}
    return AzureStore(container, config=cast("Any", config), **options)


@dataclass(frozen=True, slots=True)
class _Cloud:
    """open: makes a client for one bucket. endpoints: environment variables for another address, in
    order of precedence. account: variables for the account and its region; if one of them or an
    endpoint changes, a new client is made. credentials: variables to recommend if there are
    none."""

    open: Service
    endpoints: tuple[str, ...]
    account: tuple[str, ...]
    credentials: str


_CLOUDS: Mapping[str, _Cloud] = {
    "s3": _Cloud(
        _open_s3,
        ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        (
            *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
            *("AWS_REGION", "AWS_DEFAULT_REGION"),
        ),
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    ),
    "gs": _Cloud(
        _open_gcs,
        (),
        ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"),
        "GOOGLE_APPLICATION_CREDENTIALS",
    ),
    "az": _Cloud(
        _open_azure,
        ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
        (
            *("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
            *("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"),
        ),
        "AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY",
    ),
}


class Bucket:
    """The client of one bucket. Thread-safe; must not be used on both sides of a fork."""

    def __init__(self, scheme: str, name: str) -> None:
        self._cloud = _CLOUDS[scheme]
        self._url = f"{scheme}://{name}"
        self._name = name
        self._stores: dict[int, ObjectStore] = {}
        self._reached = False
        self._troubled = False
        endpoints = {name: os.environ.get(name) for name in self._cloud.endpoints}
        for variable, endpoint in endpoints.items():
            if endpoint and not is_address(endpoint, "http", "https"):
                raise UsageError(f"{variable} {endpoint}: use an http(s) address")
        self._addresses = [variable for variable, endpoint in endpoints.items() if endpoint][:1]
        # obstore needs an option for addresses without TLS.
        self._plain = any(one and urlsplit(one).scheme == "http" for one in endpoints.values())

    def __str__(self) -> str:
        return self._url

    def ask(self, action: Callable[[ObjectStore], _Answer], *, size: int = 0) -> _Answer:
        """The action's result; it is repeated until it succeeds or :data:`_PATIENCE_S` have passed.

        size: bytes to transfer. Raises AlreadyExistsError, InvalidPathError, or an OSError with the
        reason.
        """
        end = time.monotonic() + (_PATIENCE_S if self._reached else _FIRST_S)
        pause = _PAUSE_S
        while True:
            try:
                answer = action(self._store(size))
            except (AlreadyExistsError, InvalidPathError):
                raise
            except (BaseError, OSError, ValueError) as error:
                trouble = self._explain(error)
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - not for secrets
                if not _may_pass(error) or time.monotonic() + wait > end:
                    raise trouble from error
            else:
                self._reached, self._troubled = True, False
                return answer
            if self._reached and not self._troubled:
                self._troubled = True
                log.warning("%s: %s; trying again", self, trouble.strerror)
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    def _store(self, size: int) -> ObjectStore:
        """A client whose time limit suits the size; clients are cached."""
        doublings = (size // (_SLOWEST * _TIMEOUT_S)).bit_length()
        if doublings not in self._stores:
            self._stores[doublings] = self._cloud.open(
                self._name,
                client_options={
                    "timeout": timedelta(seconds=_TIMEOUT_S << doublings),
                    "allow_http": self._plain,
                },
                # `ask` repeats more often, logs it, and also repeats create-only writes.
                retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=_FIRST_S)},
            )
        return self._stores[doublings]

    def _explain(self, error: Exception) -> OSError:
        """Turn an error of obstore into an OSError with a reason of one line."""
        text = str(error)
        status, code = _find_answer(text)
        named = f"({code or f'status {status}'})"
        if code in {"NoSuchBucket", "ContainerNotFound"}:
            return FileNotFoundError(
                errno.ENXIO, f"there is no bucket {self}; make it, or correct its name"
            )
        if _METADATA_SERVICE in text or "must be specified" in text:
            return PermissionError(errno.EACCES, f"no credentials; set {self._cloud.credentials}")
        if status in {401, 403}:
            return PermissionError(errno.EACCES, f"access denied {named}; check the credentials")
        if isinstance(error, FileNotFoundError) or status == 404:
            return FileNotFoundError(errno.ENOENT, "no such object")
        if "redirect" in text or status in {301, 307}:
            return OSError(errno.ENXIO, f"{self} is in another region; set AWS_REGION")
        if isinstance(error, ValueError):
            return OSError(errno.EINVAL, UNNAMEABLE)
        if not _may_pass(error):
            return OSError(errno.EINVAL, f"the object store refuses it {named}")
        named = f" {named}" if status else ""
        remedy = (
            "" if self._reached else f"; check {' and '.join(['the network', *self._addresses])}"
        )
        return TimeoutError(errno.ETIMEDOUT, f"the object store does not answer{named}{remedy}")


def split_name(name: str) -> tuple[Bucket, str]:
    """The bucket of a name and the key in it, which may be empty. Raises UsageError."""
    scheme, _, rest = name.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket:
        raise UsageError(f"{name}: names no bucket; use {scheme}://BUCKET/KEY")
    cloud = _CLOUDS[scheme]
    # Only these, not all of the cloud's variables: a list may have a great many names.
    settings = tuple(map(os.environ.get, (*cloud.endpoints, *cloud.account)))
    return _open_bucket(scheme, bucket, settings), key


@lru_cache
def _open_bucket(scheme: str, name: str, settings: tuple[str | None, ...]) -> Bucket:
    """One client for all objects of a bucket; a new one if its settings have changed."""
    return Bucket(scheme, name)


def _find_answer(text: str) -> tuple[int, str]:
    """The HTTP status and the service's error code in an error's text; 0 and "" if missing."""
    status, code = _STATUS.search(text), _CODE.search(text)
    return int(status[1]) if status else 0, code[1] if code else ""


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: the network or the service failed, not the request."""
    text = str(error)
    if not isinstance(error, GenericError) or _METADATA_SERVICE in text:
        return False
    status, _ = _find_answer(text)
    return status >= 500 or status in _PASSING or (not status and "HTTP error" in text)

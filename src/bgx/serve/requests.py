"""What the requests of all three APIs are parsed into, and refused with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Package = Literal["picture", "zip"]
"""The file alone, or a zip of its colours (JPEG) and its alpha (PNG)."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error of the server
    """A request is answered with an error.

    status: of HTTP. code: short and stable, for programs. title: one line for people. retry_after:
    seconds until it makes sense to try again; None if it makes none.
    """

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        *,
        detail: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(title)
        self.status, self.code, self.title = status, code, title
        self.detail, self.retry_after = detail, retry_after


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a request, of any content type. texts, files: values by field name."""

    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A picture to be fetched from a URL.

    refuse: makes the refusal if that fails, of the reason and of whether the URL itself was bad.
    off: the refusal's code if this server fetches nothing.
    """

    url: str
    refuse: Callable[[str, bool], Refusal]
    off: str = "urls-off"


@dataclass(frozen=True, slots=True)
class CutoutRequest:
    """A picture to cut out.

    options: values of bgx's picture options by name. background: an image behind the subject, in
    place of ``options["background"]``. model: None for the server's default. preset: name of a
    preset; ``options`` override it. kind: what the client says the photo shows, which remove.bg's
    API repeats in its answer.
    """

    source: bytes | Link
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    background: bytes | Link | None = None
    preset: str | None = None
    package: Package = "picture"
    kind: str | None = None

    def without_pictures(self) -> CutoutRequest:
        """A copy without the bytes of pictures, to be kept until the answer."""
        return replace(self, source=b"", background=None)

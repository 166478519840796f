"""What the three forms of request come to, and the refusal that each form words in its own way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Package = Literal["picture", "zip"]
"""The file alone, or a zip of its colours (JPEG) and its alpha (PNG)."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not a fault
    """A request is answered with an error. status: of HTTP. code: short, stable. title: one line
    for people. retry_after: seconds, where trying again makes sense."""

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
    """The fields of a request, whatever content type they came in. files: bytes by field."""

    texts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A picture that is to be fetched. refuse: the refusal where that fails; takes the reason and
    whether the address itself was refused. off: its code where nothing is fetched."""

    url: str
    refuse: Callable[[str, bool], Refusal]
    off: str = "urls-off"


@dataclass(frozen=True, slots=True)
class Ask:
    """A picture to cut out. options: bgx's picture options by their names, as texts and switches.

    background: an image behind the subject, in place of ``options["background"]``. model: None is
    the server's first. preset: options that stand behind those asked for. kind: what the
    client says the photo shows, told again in the answer.
    """

    source: bytes | Link
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    background: bytes | Link | None = None
    preset: str | None = None
    package: Package = "picture"
    kind: str | None = None

    def without_pictures(self) -> Ask:
        """What the answer needs to know of it."""
        return replace(self, source=b"", background=None)

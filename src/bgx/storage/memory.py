"""A picture that is in memory already: a file's bytes or a Pillow image."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bgx.errors import UnreadableError

if TYPE_CHECKING:
    from typing import BinaryIO

    from PIL import Image

    from bgx.storage.base import File


@dataclass(frozen=True, slots=True)
class InMemory:
    """A source in memory. picture: a file's bytes, or an image. name: for messages."""

    picture: bytes | Image.Image = field(repr=False)
    name: str = "picture"

    def __str__(self) -> str:
        return self.name

    def open(self) -> BinaryIO | Image.Image:
        """Raises UnreadableError for what is neither."""
        if isinstance(self.picture, bytes):
            return io.BytesIO(self.picture)
        if not hasattr(self.picture, "seek"):
            kind = type(self.picture).__name__
            raise UnreadableError(
                f"{self}: is of type {kind}; use a path, a file's bytes, or a Pillow image "
                "(Image.fromarray makes one of an array)"
            )
        return self.picture

    def link(self, page: File) -> str:
        return ""

"""A picture that is in memory already: bytes from a pipe or a request, an image of Pillow's."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

    from PIL import Image

    from bgx.storage.base import File


@dataclass(frozen=True, slots=True)
class InMemory:
    """A source. picture: a whole file's bytes, or an image. name: what messages call it."""

    picture: bytes | Image.Image = field(repr=False)
    name: str = "picture"

    def __str__(self) -> str:
        return self.name

    def open(self) -> BinaryIO | Image.Image:
        return io.BytesIO(self.picture) if isinstance(self.picture, bytes) else self.picture

    def link(self, page: File) -> str:
        return ""

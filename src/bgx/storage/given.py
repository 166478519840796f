"""A picture that the caller has in memory."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

    from PIL import Image

    from bgx.storage.base import File


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A whole file's bytes, or an image of Pillow's, as the source of a job. name: in messages."""

    content: bytes | Image.Image
    name: str = "picture"

    def __str__(self) -> str:
        return self.name

    def link(self, page: File) -> str:
        """Empty: it lies nowhere."""
        return ""

    def open(self) -> BinaryIO | Image.Image:
        """As :meth:`bgx.storage.Source.open`."""
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content

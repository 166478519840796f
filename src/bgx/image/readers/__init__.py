"""Readers of picture formats: each opens a stream, reads its header, and decodes its pixels.

``base`` has their interface. ``jpeg``, ``png``, ``tiff``, ``bmp``, ``gif``, ``webp`` and ``boxes``
(AVIF and HEIC) read one format each; ``pillow`` is what they have in common, and reads Pillow
images. :mod:`bgx.image.read` chooses the reader, and makes a photo of what it decodes.
"""

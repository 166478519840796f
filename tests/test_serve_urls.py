"""Requests with the URL of a photo, which the server fetches."""

from __future__ import annotations

import asyncio
import io
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from PIL import Image

from bgx.serve.app import make_app
from bgx.serve.service import Service
from bgx.serve.settings import ServeSettings
from bgx.settings import ModelSettings
from support.http import request
from support.net import Net, ok
from support.pictures import encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_image = Image.new("RGB", (120, 80), "black")
_image.paste("white", (30, 20, 90, 60))
PHOTO = encode(_image, "JPEG", quality=95)
SHELF = encode(Image.new("RGB", (10, 10), (12, 34, 56)), "PNG")


def serve(home: Path, net: Net, ask: Callable[[Any, int], Awaitable[None]], answer: bytes) -> None:
    """Have a service of this process answer while a server of the net holds the photo."""

    async def run() -> None:
        net.names["photos.example"] = [["127.0.0.1"]]
        settings = ServeSettings(
            models=("u2netp",), model_files=ModelSettings(folder=home), fetch_urls=True, timeout=20
        )
        service = Service(settings, fetcher=net.fetcher(max_bytes=10_000))
        await service.load()
        try:
            async with net.serve(ok(answer)) as port:
                await ask(make_app(service), port)
        finally:
            await service.close()

    asyncio.run(run())


def test_all_three_forms_fetch_the_photo(stocked_home: Path) -> None:
    net = Net()

    async def ask(app: Any, port: int) -> None:
        url = f"http://photos.example:{port}/a.jpg"
        answers = [
            await request(app, "POST", "/v1.0/removebg", {"image_url": url}),
            await request(app, "GET", f"/api/remove?url={quote(url)}"),
            await request(app, "POST", f"/cutouts?url={quote(url)}", {"format": "png"}),
        ]
        for status, body in answers:
            assert status == 200, body
            with Image.open(io.BytesIO(body)) as cutout:
                assert (cutout.mode, cutout.size) == ("RGBA", (120, 80))

    serve(stocked_home, net, ask, PHOTO)

    assert net.asked == ["photos.example"] * 3


def test_a_background_is_fetched_too(stocked_home: Path) -> None:
    async def ask(app: Any, port: int) -> None:
        import base64

        fields = {
            "image_file_b64": base64.b64encode(PHOTO).decode(),
            "bg_image_url": f"http://photos.example:{port}/shelf.png",
        }
        status, body = await request(app, "POST", "/v1.0/removebg", fields)
        assert status == 200, body
        with Image.open(io.BytesIO(body)) as picture:
            corner = picture.getpixel((1, 1))
        assert corner == pytest.approx((12, 34, 56), abs=3)

    serve(stocked_home, Net(), ask, SHELF)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(b"x" * 10_001, "file_too_large"), (b"no picture", "failed_to_read_image")],
)
def test_what_is_fetched_is_checked_like_what_is_sent(
    stocked_home: Path, answer: bytes, code: str
) -> None:
    async def ask(app: Any, port: int) -> None:
        url = f"http://photos.example:{port}/a.jpg"
        status, body = await request(app, "POST", "/v1.0/removebg", {"image_url": url})
        assert (status, json.loads(body)["errors"][0]["code"]) == (400, code)
        # An address that refuses is told as such.
        url = f"http://nobody.example:{port}/a.jpg"
        status, body = await request(app, "POST", "/v1.0/removebg", {"image_url": url})
        assert json.loads(body)["errors"][0]["code"] == "invalid_image_url"

    serve(stocked_home, Net(), ask, answer)

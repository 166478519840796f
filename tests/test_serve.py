"""``bgx serve`` as its clients see it: every route, its answers and its errors."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from PIL import Image

from bgx.model.opening import open_session
from bgx.options import OutputSettings
from bgx.serve.app import make_app
from bgx.serve.making import Order
from bgx.serve.networks import Networks, code_fingerprint
from bgx.serve.queue import Load, Queue
from bgx.serve.service import Service
from bgx.serve.settings import ServeSettings
from bgx.serve.work import PendingResult, Work
from bgx.settings import ModelSettings
from bgx.threads import begin, wait_for
from support.http import multipart, request
from support.pictures import encode
from support.serving import serving
from support.shell import bgx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Server

SIZE = (120, 80)


def draw(colour: str = "white", size: tuple[int, int] = SIZE) -> Image.Image:
    """A subject in the middle half of a black frame."""
    image = Image.new("RGB", size, "black")
    width, height = size
    image.paste(colour, (width // 4, height // 4, width * 3 // 4, height * 3 // 4))
    return image


PHOTO = encode(draw(), "JPEG", quality=95)
EMPTY = encode(Image.new("RGB", SIZE, "black"), "PNG")


def picture(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as opened:
        opened.load()
        return opened


@pytest.fixture(scope="module")
def server(_stocked_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    cache = tmp_path_factory.mktemp("cache")
    with serving(
        *("--model", "u2netp", "--model", "lite", "--cache", cache, "--log-json"),
        *("--max-body", "4MB", "--max-pixels", "2000000", "--cors", "https://shop.example"),
        env={"BGX_HOME": str(_stocked_home)},
    ) as running:
        yield running


# bgx's own route ----------------------------------------------------------------------------------


def test_a_photo_as_the_body_gives_its_cut_out(server: Server) -> None:
    answer = server.send(PHOTO)

    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    cutout = picture(answer.body)
    assert (cutout.mode, cutout.size) == ("RGBA", SIZE)
    assert cutout.getpixel((60, 40)) == (255, 255, 255, 255)
    assert cutout.getpixel((2, 2)) == (0, 0, 0, 0)
    assert (answer.headers["x-width"], answer.headers["x-height"]) == ("120", "80")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", []),
        ("?format=webp&quality=80", ["--format", "webp", "--quality", "80"]),
        (
            "?format=jpg&canvas=100x100&fill=80%25",
            ["--format", "jpg", "--canvas", "100x100", "--fill", "80%"],
        ),
        ("?background=%23204060", ["--background", "#204060"]),
        ("?refine=false&margin=5%25", ["--no-refine", "--margin", "5%"]),
        ("?preset=ebay", ["--preset", "ebay"]),
        ("?mask_only=true", ["--mask-only"]),
        (
            "?region=10%25,0,900,100%25&keep=largest",
            ["--region", "10%,0,900,100%", "--keep", "largest"],
        ),
        # In a query, + is a space.
        ("?shift=+2px&soften=1px", ["--shift", "+2px", "--soften", "1px"]),
        ("?threshold=0.5&shift=-1.5", ["--threshold", "0.5", "--shift", "-1.5"]),
    ],
)
def test_a_picture_is_byte_for_byte_the_command_lines(
    server: Server, stocked_home: Path, tmp_path: Path, query: str, options: list[str]
) -> None:
    photo = encode(draw(size=(1500, 1100)), "JPEG", quality=90)
    (tmp_path / "photo.jpg").write_bytes(photo)

    answer = server.send(photo, query)
    done = bgx(
        *("batch", tmp_path / "photo.jpg", "-o", tmp_path / "cut", "--model", "u2netp"), *options
    )

    assert (answer.status, done.code) == (200, 0), done.err
    [target] = (tmp_path / "cut").iterdir()
    assert answer.body == target.read_bytes()


def test_a_form_holds_the_photo_and_its_options(server: Server) -> None:
    shelf = encode(Image.new("RGB", (10, 10), (12, 34, 56)), "PNG")

    answer = server.post("/cutouts", {"resize": "60"}, {"image": PHOTO, "background": shelf})

    cutout = picture(answer.body)
    assert (cutout.mode, cutout.size) == ("RGB", (60, 40))
    assert cutout.getpixel((1, 1)) == (12, 34, 56)


def test_a_background_that_is_too_large_is_refused_with_the_limit(server: Server) -> None:
    large = encode(Image.new("1", (2001, 1000)), "PNG")

    answer = server.post("/cutouts", {}, {"image": PHOTO, "background": large})

    assert answer.status == 400
    assert answer.json["title"] == "background: more than 2,000,000 pixels; use a smaller one"


def test_the_report_row_comes_as_json_with_a_link(server: Server) -> None:
    row = server.send(PHOTO, "?format=webp", accept="application/json").json

    assert (row["width"], row["height"], row["type"]) == (120, 80, "image/webp")
    assert row["subject"] is True
    assert row["doubtful"] is False
    assert set(row["seconds"]) == {"read", "infer", "compose", "write"}
    linked = server.get(row["cutout"])
    assert (linked.status, len(linked.body)) == (200, row["bytes"])


def test_a_result_has_an_address_that_may_be_kept_for_ever(server: Server) -> None:
    made = server.send(PHOTO)
    address = made.headers["content-location"]

    answer = server.get(address)

    assert answer.body == made.body
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["etag"] == made.headers["etag"]
    for condition in (answer.headers["etag"], f'"x", W/{answer.headers["etag"]}', "*"):
        same = server.get(address, if_none_match=condition)
        assert (same.status, same.body) == (304, b"")
    assert server.get(address, if_none_match='"other"').status == 200
    head = server.request("HEAD", address)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(made.body))
    assert made.headers["cache-control"] == "no-store"


def test_a_second_request_is_a_hit(server: Server) -> None:
    photo = encode(draw("yellow"), "PNG")
    runs = server.figure('bgx_step_seconds_count{step="infer"}')

    first, second = server.send(photo), server.send(photo)

    assert [first.headers["x-cache"], second.headers["x-cache"]] == ["miss", "hit"]
    assert first.body == second.body
    assert server.figure('bgx_step_seconds_count{step="infer"}') == runs + 1
    # Other options are another result, and so is another network.
    assert server.send(photo, "?format=webp").headers["x-cache"] == "miss"
    assert server.send(photo, "?model=lite").headers["x-cache"] == "miss"


@pytest.mark.parametrize(
    ("photo", "query", "status", "code"),
    [
        (PHOTO, "?formats=png", 400, "bad-request"),
        (PHOTO, "?format=gif", 400, "usage"),
        (PHOTO, "?quality=101", 400, "usage"),
        (PHOTO, "?quality=ten", 400, "bad-request"),
        (PHOTO, "?crop=perhaps", 400, "bad-request"),
        (PHOTO, "?preset=bazaar", 400, "usage"),
        (PHOTO, "?fill=80%25&margin=3%25", 400, "usage"),
        (PHOTO, "?model=../../secret.onnx", 400, "unknown-model"),
        (PHOTO, "?url=http://x.example/", 400, "bad-request"),
        (b"", "?url=http://x.example/", 400, "urls-off"),
        (b"", "", 400, "bad-request"),
        (b"no picture", "", 422, "unreadable"),
        (PHOTO[:300], "", 422, "unreadable"),
        (EMPTY, "?crop=true", 422, "no-subject"),
        (PHOTO, "?region=0,0,121,80", 422, "region"),
        (PHOTO, "?region=50%25,0,50px,80", 422, "region-empty"),
        (PHOTO, "?region=50,0,40,80", 400, "usage"),
        (PHOTO, "?keep=center", 400, "usage"),
        (PHOTO, "?threshold=nan", 400, "usage"),
        (PHOTO, "?shift=1000px", 400, "usage"),
        (encode(Image.new("RGB", (2000, 1001)), "PNG"), "", 413, "too-large"),
        (b"x" * 4_000_001, "", 413, "too-many-bytes"),
    ],
)
def test_what_cannot_be_done_is_a_problem(
    server: Server, photo: bytes, query: str, status: int, code: str
) -> None:
    answer = server.send(photo, query)

    assert (answer.status, answer.json["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["title"]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("?region=0,0,121,80", "picture: region 0px,0px,121px,80px reaches beyond the photo's"),
        ("?max_bytes=10", "picture: the lossless file has"),
        ("?fill=80%25&margin=3%25", "fill and margin both set the space"),
        ("?mask_only=true&shadow=soft", "mask_only writes the matte and needs no shadow"),
        ("?quality=80&format=png", "quality has no meaning for png"),
        ("?preset=bazaar", "preset bazaar: no such preset"),
    ],
)
def test_a_problem_names_the_field_that_was_sent(server: Server, query: str, title: str) -> None:
    answer = server.send(PHOTO, query)

    assert answer.json["title"].startswith(title)
    assert "--" not in answer.json["title"]


def test_no_file_of_the_server_is_named_from_outside(server: Server, tmp_path: Path) -> None:
    there = tmp_path / "shelf.png"
    there.write_bytes(EMPTY)

    answers = [
        server.send(PHOTO, "?" + urlencode({"background": str(path)}))
        for path in (there, tmp_path / "not-there.png", "/etc/passwd")
    ]

    # Whether a file is there makes no difference.
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].status == 400


def test_models_are_those_of_the_server(server: Server) -> None:
    small = server.send(PHOTO, "?refine=false&model=lite")
    refused = server.send(PHOTO, "?model=u2net")

    assert small.status == 200
    assert small.body != server.send(PHOTO, "?refine=false").body
    assert "use one of u2netp, lite" in refused.json["title"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/cutouts/0123456789abcdef", 404),
        ("GET", "/cutouts/..%2f..%2fsecret", 404),
        ("GET", "/page/..%2f__init__.py", 404),
        ("PUT", "/cutouts", 405),
        ("GET", "/v1.0/removebg", 405),
        ("POST", "/cutouts/0123456789abcdef", 405),
    ],
)
def test_what_is_not_there(server: Server, method: str, path: str, status: int) -> None:
    answer = server.request(method, path)

    assert answer.status == status
    assert answer.json


def test_errors_that_no_route_tells_have_its_form_too(server: Server, stocked_home: Path) -> None:
    """A method that there is not, and a fault of the server."""

    def explode(_: str | None) -> None:
        raise RuntimeError("a fault")

    async def run() -> list[tuple[int, bytes]]:
        settings = ServeSettings(models=("u2netp",), model_files=ModelSettings(stocked_home))
        service = Service(settings)
        service.networks.choose = explode  # type: ignore[method-assign,assignment]
        app = make_app(service)
        try:
            return [
                await request(app, "POST", "/v1.0/removebg", {"image_url": "http://x.example/"}),
                await request(app, "GET", "/api/remove?url=http://x.example/"),
                await request(app, "POST", "/cutouts?url=http://x.example/", {"format": "png"}),
            ]
        finally:
            await service.close()

    removed, rembg, native = asyncio.run(run())

    assert [status for status, _ in (removed, rembg, native)] == [500, 500, 500]
    assert json.loads(removed[1])["errors"][0]["code"] == "bug"
    assert json.loads(rembg[1])["detail"]
    assert json.loads(native[1])["code"] == "bug"
    assert server.get("/v1.0/removebg").json["errors"][0]["code"] == "no_route"
    assert server.request("PUT", "/api/remove").json["detail"] == "Method Not Allowed"


def test_pages_of_another_site_may_call_when_they_are_named(server: Server) -> None:
    shop = server.send(PHOTO, origin="https://shop.example")
    other = server.send(PHOTO, origin="https://other.example")

    assert shop.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize("path", ["/cutouts", "/v1.0/removebg", "/api/remove"])
def test_another_site_may_send_headers_that_upload_libraries_add(server: Server, path: str) -> None:
    named = "cache-control,content-type,x-api-key,x-requested-with"
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": named,
    }

    answer = server.request("OPTIONS", path, headers=asked)

    assert (answer.status, answer.headers["access-control-allow-headers"]) == (200, named)


# remove.bg's route --------------------------------------------------------------------------------


def removebg(server: Server, fields: dict[str, str] | None = None, **headers: str) -> Any:
    return server.post("/v1.0/removebg", fields or {}, {"image_file": PHOTO}, **headers)


def test_remove_bg_s_request_gets_remove_bg_s_answer(server: Server) -> None:
    answer = removebg(server)

    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    cutout = picture(answer.body)
    assert (cutout.mode, cutout.size) == ("RGBA", SIZE)
    expected = {
        "x-width": "120",
        "x-height": "80",
        "x-max-width": "120",
        "x-max-height": "80",
        "x-type": "other",
        "x-credits-charged": "0",
        "access-control-allow-origin": "*",
        "x-ratelimit-limit": "64",
    }
    assert expected.items() <= answer.headers.items()
    box = [answer.headers[f"x-foreground-{side}"] for side in ("left", "top", "width", "height")]
    assert [int(side) for side in box] == pytest.approx([30, 20, 60, 40], abs=4)


def test_a_preview_is_a_quarter_of_a_megapixel(server: Server) -> None:
    large = encode(draw(size=(1200, 800)), "JPEG")

    answer = server.post("/v1.0/removebg", {"size": "preview"}, {"image_file": large})

    assert picture(answer.body).size == (612, 408)
    assert (answer.headers["x-max-width"], answer.headers["x-max-height"]) == ("1200", "800")


def test_the_subject_of_a_narrow_photo_is_where_it_is(server: Server) -> None:
    narrow = encode(draw(size=(41, 19_000)), "PNG")

    # 23 x 10763, rounded down from 23.2.
    answer = server.post("/v1.0/removebg", {"roi": "0% 0% 100% 50%"}, {"image_file": narrow})

    assert int(answer.headers["x-foreground-top"]) == pytest.approx(4750, abs=5)
    assert int(answer.headers["x-foreground-height"]) == pytest.approx(4750, abs=5)


@pytest.mark.parametrize("kind", ["json", "urlencoded"])
def test_the_photo_may_come_in_base64(server: Server, kind: str) -> None:
    fields = {"image_file_b64": base64.b64encode(PHOTO).decode(), "format": "auto"}
    body, content_type = {
        "json": (json.dumps(fields | {"crop": False, "scale": None}), "application/json"),
        "urlencoded": (urlencode(fields), "application/x-www-form-urlencoded"),
    }[kind]

    answer = server.request("POST", "/v1.0/removebg", body.encode(), {"Content-Type": content_type})

    assert answer.body == removebg(server).body


def test_the_answer_may_come_as_json(server: Server) -> None:
    data = removebg(server, accept="application/json").json["data"]

    assert base64.b64decode(data["result_b64"]) == removebg(server).body
    assert data["foreground_width"] == pytest.approx(60, abs=4)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json, text/plain, */*", "image/png"),  # axios, Angular
        ("application/json, text/javascript, */*; q=0.01", "application/json"),  # jQuery
        ("image/png, application/json;q=0.1", "image/png"),
        ("image/*;q=0.5, application/json", "application/json"),
        ("*/*;q=0.5, image/png;q=0, application/json;q=0.4", "application/json"),
        ("application/json;q=0", "image/png"),
        ("Application/JSON; charset=utf-8", "application/json"),
        ("*/*", "image/png"),
        ("text/html", "image/png"),
        ("nonsense;;q=x,,", "image/png"),
    ],
)
def test_json_comes_to_who_prefers_it(server: Server, accept: str, kind: str) -> None:
    assert removebg(server, accept=accept).headers["content-type"] == kind
    assert server.send(PHOTO, accept=accept).headers["content-type"] == kind


def test_a_zip_holds_colours_and_alpha(server: Server) -> None:
    answer = removebg(server, {"format": "zip"})

    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.namelist() == ["color.jpg", "alpha.png"]
        colour, alpha = (picture(archive.read(name)) for name in archive.namelist())
    assert (colour.mode, colour.size) == ("RGB", SIZE)
    whole = picture(removebg(server, {"size": "full"}).body)
    assert alpha.tobytes() == whole.getchannel("A").tobytes()


@pytest.mark.parametrize(
    ("fields", "size", "corner"),
    [
        ({"bg_color": "red"}, SIZE, (255, 0, 0)),
        ({"bg_color": "00ff0080", "format": "png"}, SIZE, (0, 255, 0, 128)),
        ({"channels": "alpha"}, SIZE, 0),
        ({"crop": "true", "crop_margin": "10px 20px"}, (100, 60), (0, 0, 0, 0)),
        ({"scale": "50%"}, SIZE, (0, 0, 0, 0)),
        ({"position": "0% 0%"}, SIZE, (255, 255, 255, 255)),
        ({"roi": "50% 0% 100% 100%", "crop": "true"}, (30, 40), (255, 255, 255, 255)),
    ],
)
def test_fields_do_what_they_say(
    server: Server, fields: dict[str, str], size: tuple[int, int], corner: Any
) -> None:
    cutout = picture(removebg(server, fields | {"size": "full"}).body)

    assert cutout.size == pytest.approx(size, abs=8)
    spot = cutout.getpixel((6, 6))
    assert spot == pytest.approx(corner, abs=3)


@pytest.mark.parametrize(
    ("fields", "files", "status", "code"),
    [
        ({}, {}, 400, "missing_source"),
        ({"image_url": "http://x.example/a.jpg"}, {}, 400, "invalid_image_url"),
        (
            {"bg_image_url": "http://x.example/a.jpg"},
            {"image_file": PHOTO},
            400,
            "invalid_bg_image_url",
        ),
        ({"image_file_b64": "AAAA"}, {"image_file": PHOTO}, 400, "multiple_sources"),
        ({"size": "huge"}, {"image_file": PHOTO}, 400, "invalid_size"),
        ({"shadow_type": "car"}, {"image_file": PHOTO}, 400, "unsupported_shadow_type"),
        ({"roi": "0 0 200 200"}, {"image_file": PHOTO}, 400, "roi_exceeds_bounds"),
        ({"roi": "0 0 50% 81"}, {"image_file": PHOTO}, 400, "roi_exceeds_bounds"),
        ({"roi": "60 0 50 50"}, {"image_file": PHOTO}, 400, "roi_region_empty"),
        ({"roi": "50% 0 50px 50"}, {"image_file": PHOTO}, 400, "roi_region_empty"),
        ({}, {"image_file": b"no picture"}, 400, "failed_to_read_image"),
        ({}, {"image_file": EMPTY}, 400, "unknown_foreground"),
        ({"crop": "true"}, {"image_file": EMPTY}, 400, "unknown_foreground"),
        ({}, {"image_file": b"x" * 4_000_001}, 400, "file_too_large"),
        # 4,000,002 bytes.
        ({"image_file_b64": "AAAA" * 1_333_334}, {}, 400, "file_too_large"),
        (
            {},
            {"image_file": encode(Image.new("RGB", (2000, 1001)), "PNG")},
            400,
            "resolution_too_high",
        ),
        ({}, {"image_file": PHOTO, "bg_image_file": b"none"}, 400, "invalid_bg_image_file"),
        # As requests sends what is given as files={"image_url": "http://x.example/a.jpg"}.
        ({}, {"image_url": b"http://x.example/a.jpg"}, 400, "invalid_file_type"),
        ({}, {"image_file_b64": b"AAAA"}, 400, "invalid_file_type"),
        ({}, {"image_file": PHOTO, "bg_color": b"red"}, 400, "invalid_file_type"),
        ({}, {"image_file": PHOTO, "bg_image_url": b"http://x"}, 400, "invalid_file_type"),
    ],
)
def test_remove_bg_s_errors_have_its_form_and_codes(
    server: Server, fields: dict[str, str], files: dict[str, bytes], status: int, code: str
) -> None:
    answer = server.post("/v1.0/removebg", fields, files)

    [error] = answer.json["errors"]
    assert (answer.status, error["code"]) == (status, code)
    assert error["title"]
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("fields", "files", "detail"),
    [
        ({"roi": "0 0 200 200"}, {}, "picture: roi 0px,0px,200px,200px reaches beyond"),
        ({"roi": "50% 0 50px 50"}, {}, "picture: roi 50%,0px,50px,50px holds no pixel"),
        ({}, {"bg_image_file": b"none"}, "background: "),
    ],
)
def test_remove_bg_s_errors_name_its_fields(
    server: Server, fields: dict[str, str], files: dict[str, bytes], detail: str
) -> None:
    answer = server.post("/v1.0/removebg", fields, {"image_file": PHOTO, **files})

    [error] = answer.json["errors"]
    assert error["detail"].startswith(detail)
    assert "--" not in error["detail"]


def test_an_account_is_told(server: Server) -> None:
    attributes = server.get("/v1.0/account").json["data"]["attributes"]

    assert attributes["api"]["sizes"] == "all"


# rembg's route ------------------------------------------------------------------------------------


def test_rembg_s_request_gets_the_networks_own_matte(server: Server) -> None:
    answer = server.post("/api/remove", {"om": "false"}, {"file": PHOTO})

    assert answer.headers["content-type"] == "image/png"
    assert answer.body == server.send(PHOTO, "?refine=false").body
    mask = server.post("/api/remove", {"om": "true"}, {"file": PHOTO})
    assert picture(mask.body).mode == "L"
    red = server.post("/api/remove?bgc=255,0,0,255", {}, {"file": PHOTO})
    assert picture(red.body).getpixel((1, 1))[:3] == (255, 0, 0)  # type: ignore[index]


@pytest.mark.parametrize(
    ("query", "fields", "files", "status"),
    [
        ("", {"vm": "true"}, {"file": PHOTO}, 400),
        ("?extras={}", {}, {"file": PHOTO}, 400),
        ("", {"model": "birefnet"}, {"file": PHOTO}, 400),
        ("", {}, {}, 422),
        ("", {}, {"file": b"no picture"}, 422),
    ],
)
def test_rembg_s_errors(
    server: Server, query: str, fields: dict[str, str], files: dict[str, bytes], status: int
) -> None:
    answer = server.post(f"/api/remove{query}", fields, files)

    assert (answer.status, list(answer.json)) == (status, ["detail"])
    if not files:
        assert server.get("/api/remove").status == 422


# Operation ----------------------------------------------------------------------------------------


def test_health_is_told(server: Server) -> None:
    assert [server.get(path).status for path in ("/livez", "/readyz")] == [200, 200]


def test_figures_are_counted(server: Server) -> None:
    before = server.figure('bgx_requests_total{route="/cutouts",status="400"}')

    server.send(PHOTO, "?nonsense=1")

    assert server.figure('bgx_requests_total{route="/cutouts",status="400"}') == before + 1
    assert server.figure("bgx_memory_bytes") > 1_000_000
    assert server.figure("bgx_waiting") == 0


def test_a_request_has_a_line_and_an_id(server: Server) -> None:
    server.send(PHOTO, x_request_id="mine-1")
    odd = server.send(PHOTO, x_request_id="a b").headers["x-request-id"]

    server.wait_for(lambda: any(odd in line for line in server.lines), "the line")
    lines = [json.loads(line) for line in server.lines if line.startswith("{")]
    [mine] = [line for line in lines if line["id"] == "mine-1"]
    assert mine["status"] == 200
    assert (mine["method"], mine["path"]) == ("POST", "/cutouts")
    assert mine["bytes"] > 100
    assert len(odd) == 32


def test_the_page_runs_no_foreign_code(server: Server) -> None:
    page = server.get("/")

    policy = page.headers["content-security-policy"]
    assert page.status == 200
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert server.get("/page/config.json").json["models"] == ["u2netp", "lite"]


def test_the_api_is_described_for_programs_and_people(server: Server) -> None:
    document = server.get("/openapi.json").json
    page = server.get("/api")

    form = document["paths"]["/cutouts"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert {"image", "crop", "margin", "quality", "model"} <= form["schema"]["properties"].keys()
    assert form["schema"]["properties"]["model"]["enum"] == ["u2netp", "lite"]
    assert page.headers["content-type"].startswith("text/html")
    assert b"POST /v1.0/removebg" in page.body


# Options of the server ----------------------------------------------------------------------------


def test_keys_are_needed_where_they_are_set(stocked_home: Path, tmp_path: Path) -> None:
    # As Notepad writes it.
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbfsecond-key\r\n  # shops\r\n")
    with serving(
        *("--model", "u2netp", "--no-cache", "--api-keys", tmp_path / "keys", "-vv"),
        env={"BGX_HOME": str(stocked_home), "BGX_SERVE_API_KEY": "first-key"},
    ) as server:
        body, kind = multipart({}, {"image_file": PHOTO})

        def ask(path: str, **headers: str) -> int:
            given = {name.replace("_", "-"): text for name, text in headers.items()}
            return server.request("POST", path, body, {"Content-Type": kind} | given).status

        assert ask("/v1.0/removebg", x_api_key="first-key") == 200
        assert ask("/v1.0/removebg", authorization="Bearer second-key") == 200
        assert ask("/v1.0/removebg", x_api_key="wrong-key") == 403
        assert ask("/v1.0/removebg") == 403
        assert server.get("/v1.0/account", x_api_key="nonsense").status == 403
        assert server.get("/v1.0/account", X_API_KEY="second-key").status == 200
        refused = server.send(PHOTO, x_api_key="first-ke")
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        answer = server.send(PHOTO, x_api_key="first-key")
        # Without a cache nothing has an address.
        assert "content-location" not in answer.headers
        assert server.send(PHOTO, x_api_key="first-key").headers["x-cache"] == "miss"
        assert server.get("/readyz").status == 200
        told = "\n".join(server.lines)
    assert "-key" not in told.replace("--api-key", "")


def test_without_its_page_a_server_has_none(stocked_home: Path, tmp_path: Path) -> None:
    with serving(
        *("--model", "u2netp", "--no-page", "--cache", tmp_path / "cache", "--quiet"),
        env={"BGX_HOME": str(stocked_home)},
        ready=False,
    ) as server:
        assert server.process.poll() is None
    with serving(
        "--no-page",
        env={
            "BGX_HOME": str(stocked_home),
            "BGX_SERVE_MODEL": "u2netp",
            "BGX_SERVE_CACHE": str(tmp_path / "cache"),
        },
    ) as server:
        assert server.get("/").status == 404
        assert server.send(PHOTO).status == 200
        assert "with u2netp on cpu" in server.lines[0]


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--model", "no-such"], 3, "no-such"),
        (["--device", "cuda:x"], 2, "--device cuda:x"),
        (["--host", "no.such.host.invalid"], 2, "cannot listen there"),
        (["--queue", "0"], 2, "--queue 0: use 1 or more"),
        (["--max-body", "wide"], 2, "--max-body wide"),
        (["--cors", "shop.example"], 2, "--cors shop.example"),
        (["--cors", "https://shop.example/"], 2, "without a slash at its end"),
        (["--cors", "https://Shop.example"], 2, "in lower case"),
        (["--trust-proxy", "nginx"], 2, "--trust-proxy nginx: use an address"),
        (["--trust-proxy", "10.0.0.1/8"], 2, "--trust-proxy 10.0.0.1/8"),
        (["--timeout", "nan"], 2, "--timeout nan"),
        (["--api-key", "two words"], 2, "--api-key"),
        (["--api-keys", "no-such-file"], 2, "--api-keys no-such-file"),
        (["--api-keys", ""], 2, "--api-keys: the name is empty"),
        (["--cache", ""], 2, "--cache: the name is empty"),
        (["--cache", "/dev/null/x"], 5, "--cache /dev/null/x"),
        (["--cache", "x", "--no-cache"], 2, "leave one of them out"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    stocked_home: Path, options: list[str], code: int, told: str
) -> None:
    done = bgx("serve", "--port", "0", "--offline", *options)

    assert done.code == code, done.err
    assert told in done.err


def test_every_line_of_the_log_is_a_request_s_or_begins_with_bgx(stocked_home: Path) -> None:
    with serving("--model", "u2netp", "--no-cache", env={"BGX_HOME": str(stocked_home)}) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as scanner:
            scanner.sendall(b"\x16\x03\x01 no HTTP\r\n\r\n")
            assert b"400" in scanner.recv(100)
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        assert server.request("POST", "/v1.0/removebg", b"no parts", kind).status == 400

    assert [line for line in server.lines if not line.startswith(("bgx: ", "127.0.0.1 "))] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a running process")
def test_without_file_descriptors_it_says_so_once_and_recovers(stocked_home: Path) -> None:
    import resource

    with serving("--model", "u2netp", "--no-cache", env={"BGX_HOME": str(stocked_home)}) as server:
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (40, hard))
        with contextlib.ExitStack() as idle:
            for _ in range(60):
                idle.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            server.wait_for(lambda: any("accepted" in line for line in server.lines), "a line")
        assert server.get("/livez").status == 200

    lines = [line for line in server.lines if not line.startswith("127.0.0.1 ")]
    assert [line for line in lines if "listening" not in line and "shutting" not in line] == [
        "bgx: no connection can be accepted at the moment: Too many open files"
    ]


def test_a_file_without_keys_does_not_open_the_server_to_all(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# none yet\n\n")

    done = bgx("serve", "--port", "0", "--offline", "--api-keys", tmp_path / "keys")

    assert (done.code, "contains no keys" in done.err) == (2, True), done.err


def test_open_to_others_without_a_key_is_warned_of(stocked_home: Path) -> None:
    home = {"BGX_HOME": str(stocked_home)}
    options = ("--model", "u2netp", "--no-cache", "--host", "0.0.0.0")
    for more, warned in (((), True), (("--api-key", "x"), False)):
        with serving(*options, *more, env=home, ready=False) as server:
            server.wait_for(lambda: any("listening" in line for line in server.lines), "start")
            assert any("no --api-key" in line for line in server.lines) == warned


def test_a_fault_while_the_network_is_loaded_ends_the_server(stocked_home: Path) -> None:
    script = (
        "from bgx.serve import networks, server, settings\n"
        "def explode(self, model): raise RuntimeError('a fault')\n"
        "networks.Networks.open = explode\n"
        "server.serve(settings.ServeSettings(port=0), print)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)

    assert b"RuntimeError: a fault" in done.stderr


def test_a_loaded_network_is_not_waited_for_while_another_one_is_loaded(
    stocked_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServeSettings(
        models=("u2netp", "lite"), model_files=ModelSettings(folder=stocked_home)
    )
    networks = Networks(settings)
    loaded = networks.open("u2netp")
    begun, to_go_on = threading.Event(), threading.Event()

    def hesitate(*arguments: Any, **more: Any) -> Any:
        begun.set()
        to_go_on.wait(60)
        return open_session(*arguments, **more)

    monkeypatch.setattr("bgx.serve.networks.open_session", hesitate)
    other = begin(lambda: networks.open("lite"), "other")
    try:
        assert begun.wait(60)
        again = begin(lambda: networks.open("u2netp"), "again")
        assert wait_for(again, 10) is loaded
    finally:
        to_go_on.set()
        wait_for(other)
        networks.close()


def test_a_change_to_any_decoder_changes_the_addresses_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "bgx"
    shutil.copytree(str(files("bgx")), copy)
    monkeypatch.setattr("bgx.serve.networks.files", lambda _: copy)
    before = code_fingerprint()
    with (copy / "image" / "readers" / "png.py").open("a") as stream:
        stream.write("# changed")

    assert code_fingerprint() != before


def test_who_joins_a_picture_gets_it_although_the_first_one_leaves(stocked_home: Path) -> None:
    async def run() -> str:
        settings = ServeSettings(models=("u2netp",), model_files=ModelSettings(folder=stocked_home))
        networks = Networks(settings)
        networks.open("u2netp")
        queue = Queue(settings.waiting, time.monotonic)
        work = Work(queue, networks, settings.read, None, timeout=10)
        order = Order("key", PHOTO, SIZE[0] * SIZE[1], OutputSettings(), "u2netp", "picture")

        def join() -> PendingResult:
            return work.join(order, queue.enter("client", Load(), lambda _: None))

        first = asyncio.ensure_future(work.wait(join()))
        await asyncio.sleep(0)
        joined = join()
        first.cancel()
        await asyncio.wait([first])
        work.begin(1)
        entry = await work.wait(joined)
        work.close()
        networks.close()
        return entry.media

    assert asyncio.run(run()) == "image/png"

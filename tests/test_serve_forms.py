"""Reading bodies: forms in all three content types, and everything a client may get wrong."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from bgx.serve.forms import BodyLimits, check_head, read_form
from bgx.serve.requests import Form, Refusal
from support.http import multipart

if TYPE_CHECKING:
    from collections.abc import Iterable

LIMITS = BodyLimits(size=1000, seconds=10)
JSON = "application/json"
URLENCODED = "application/x-www-form-urlencoded"


def request(pieces: Iterable[bytes], kind: str, *, gone: bool = False, **headers: str) -> Request:
    """A request whose body comes in these pieces; gone: the client leaves before its end."""
    messages: list[Any] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b""})

    async def receive() -> Any:
        return messages.pop(0)

    given = {"content-type": kind} | headers
    raw = [(name.replace("_", "-").encode(), text.encode()) for name, text in given.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def read(pieces: Iterable[bytes], kind: str, limits: BodyLimits = LIMITS) -> Form:
    return asyncio.run(read_form(request(pieces, kind), limits, lambda: None))


def split(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_multipart_gives_texts_and_files(size: int) -> None:
    body, kind = multipart({"size": "hd", "name": "ü"}, {"image_file": b"\r\n--x\0photo", "b": b""})

    form = read(split(body, size), kind)

    assert form == Form({"size": "hd", "name": "ü"}, {"image_file": b"\r\n--x\0photo", "b": b""})


@pytest.mark.parametrize(
    "name",
    [
        'filename="in.jpg"',
        "filename=in.jpg; filename*=utf-8''in.jpg",  # .NET
        "filename*=utf-8''gr%C3%BCn.jpg",  # requests with urllib3 before 1.25
        "FILENAME*=UTF-8''gr%C3%BCn.jpg",
        'filename="grün.jpg"',
    ],
)
def test_a_file_is_one_however_its_name_is_written(name: str) -> None:
    head = f'--x\r\nContent-Disposition: form-data; name="image_file"; {name}\r\n\r\n'

    form = read([head.encode() + b"photo\r\n--x--\r\n"], "multipart/form-data; boundary=x")

    assert form == Form({}, {"image_file": b"photo"})


def test_no_file_chosen_is_as_if_left_out() -> None:
    """What browsers send of a file's input that was left empty."""
    head = '--x\r\nContent-Disposition: form-data; name="image_file"; filename=""\r\n\r\n'
    kind = "multipart/form-data; boundary=x"

    assert read([head.encode() + b"\r\n--x--\r\n"], kind) == Form()
    # Without a name, but there.
    assert read([head.encode() + b"photo\r\n--x--\r\n"], kind).files == {"image_file": b"photo"}


@given(
    texts=st.dictionaries(st.sampled_from("abc"), st.text(st.characters(codec="utf-8"))),
    files=st.dictionaries(st.sampled_from("def"), st.binary(max_size=300)),
    size=st.integers(1, 400),
)
def test_any_multipart_comes_back(
    texts: dict[str, str], files: dict[str, bytes], size: int
) -> None:
    body, kind = multipart(texts, files)

    assert read(split(body, size), kind) == Form(texts, files)


def test_urlencoded_gives_texts() -> None:
    fields = {"image_file_b64": "a+/b==", "size": "", "x": "ü &="}

    assert read([urlencode(fields).encode()], URLENCODED) == Form(fields)


def test_json_gives_texts() -> None:
    body = {"size": "hd", "crop": True, "add_shadow": False, "scale": None, "n": 80, "f": 0.5}

    form = read([json.dumps(body).encode()], f"{JSON}; charset=utf-8")

    assert form == Form(
        {"size": "hd", "crop": "true", "add_shadow": "false", "n": "80", "f": "0.5"}
    )


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary="])
def test_a_content_type_without_a_boundary_is_told_as_that(kind: str) -> None:
    with pytest.raises(Refusal) as caught:
        read([multipart({}, {"image_file": b"photo"})[0]], kind)

    assert "Content-Type has no boundary" in str(caught.value.detail)


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", JSON, 400, "malformed-body"),
        (b"[1]", JSON, 400, "malformed-body"),
        (b"\xff", JSON, 400, "malformed-body"),
        (b"[" * 900, JSON, 400, "malformed-body"),
        (b'{"size": ["hd"]}', JSON, 400, "malformed-body"),
        (b"&".join(b"a%d=1" % n for n in range(70)), URLENCODED, 400, "malformed-body"),
        (b"photo", "image/jpeg", 415, "unsupported-type"),
        (b"photo", "", 415, "unsupported-type"),
        (b"no parts", "multipart/form-data; boundary=x", 400, "malformed-body"),
        (b"--x", "multipart/form-data", 400, "malformed-body"),
        (b"--x\r\n\r\nno name\r\n--x--", "multipart/form-data; boundary=x", 400, "malformed-body"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nbody is cut',
            "multipart/form-data; boundary=x",
            400,
            "malformed-body",
        ),
        (multipart({}, {f"f{n}": b"" for n in range(70)})[0], "", 400, "malformed-body"),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, kind: str, status: int, code: str) -> None:
    if body.count(b"filename") == 70:
        kind = multipart({}, {})[1]
    with pytest.raises(Refusal) as caught:
        read([body], kind)
    assert (caught.value.status, caught.value.code) == (status, code)


def test_a_photo_under_the_content_type_of_a_form_is_told() -> None:
    """What curl's --data-binary sends without -H."""
    with pytest.raises(Refusal) as caught:
        read([b"\xff\xd8\xff\xe0 a photo" + b"&" * 100], URLENCODED)
    assert "needs a Content-Type of its own" in str(caught.value.detail)


def test_half_a_surrogate_does_not_come_through() -> None:
    assert read([b'{"size": "\\ud800x"}'], JSON).texts["size"] == "?x"


@pytest.mark.parametrize(
    ("pieces", "kind"),
    [
        ([multipart({}, {"image_file": b"x" * 1001})[0]], multipart({}, {})[1]),
        ([b'{"a": "'] + [b"x" * 1000] * 100, JSON),
        ([b"a="] + [b"x" * 1000] * 100, URLENCODED),
        ([multipart({"a": "x" * 100_000}, {})[0]], multipart({}, {})[1]),
    ],
)
def test_more_than_the_limit_is_not_read(pieces: list[bytes], kind: str) -> None:
    with pytest.raises(Refusal) as caught:
        read(pieces, kind)
    assert caught.value.status == 413


def test_a_length_over_the_limit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(Refusal) as caught:
        check_head(request([], JSON, content_length="10000000"), LIMITS)
    assert caught.value.status == 413
    check_head(request([], JSON, content_length="1000"), LIMITS)


def test_a_compressed_body_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        check_head(request([], JSON, content_encoding="gzip"), LIMITS)
    assert caught.value.status == 415


def test_a_body_that_drips_is_left() -> None:
    async def run() -> None:
        async def receive() -> Any:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"a", "more_body": True}

        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", JSON.encode())]}
        with pytest.raises(Refusal) as caught:
            await read_form(Request(scope, receive), BodyLimits(1000, 0.1), lambda: None)
        assert caught.value.status == 408

    asyncio.run(run())


def test_who_goes_away_is_not_answered() -> None:
    with pytest.raises(ClientDisconnect):
        asyncio.run(read_form(request([b'{"a"'], JSON, gone=True), LIMITS, lambda: None))


def test_reading_stops_when_the_place_is_lost() -> None:
    def watch() -> None:
        raise Refusal(429, "full", "full")

    with pytest.raises(Refusal, match="full"):
        asyncio.run(read_form(request([b"{", b"}"], JSON), LIMITS, watch))

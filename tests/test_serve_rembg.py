"""Requests and errors of the API of rembg's server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgx.serve.rembg import error_json, parse_request
from bgx.serve.requests import CutoutRequest, Form, Link, Refusal

PLAIN = {"format": "png", "refine": False}


def post(query: dict[str, str] | None = None, **texts: str) -> CutoutRequest:
    return parse_request(query or {}, Form(texts, {"file": b"a photo"}))


def test_a_file_alone_gets_the_networks_own_matte() -> None:
    assert post() == CutoutRequest(b"a photo", PLAIN)


def test_an_address_comes_with_get() -> None:
    wanted = parse_request({"url": "http://x.example/", "om": "1", "model": "u2netp"}, None)
    assert isinstance(wanted.source, Link)
    assert wanted.source.refuse("why", True).status == 400
    assert (wanted.options, wanted.model) == (PLAIN | {"mask_only": True}, "u2netp")


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"a": "true", "af": "200", "ab": "20", "ae": "3"}, {"refine": True}),
        ({"dc": "on"}, {"refine": True}),
        ({"a": "False"}, {}),
        ({"om": "yes"}, {"mask_only": True}),
        ({"ppm": "1"}, {"matte": "clean"}),
        ({"vm": "false", "a": ""}, {}),
    ],
)
def test_fields_of_a_form_become_options(fields: dict[str, str], options: dict[str, Any]) -> None:
    assert post(**fields).options == PLAIN | options


def test_fields_of_a_post_are_not_read_from_the_query() -> None:
    assert post({"om": "true"}).options == PLAIN


def test_a_colour_comes_in_the_query() -> None:
    assert post({"bgc": "255,0,16,128"}).options["background"] == "#ff001080"
    assert post({"bgc": "1, 2, 3"}).options["background"] == "#010203"
    assert "background" not in post({"bgc": "1,2,3,4"}, om="true").options


@pytest.mark.parametrize(
    ("query", "fields", "status", "told"),
    [
        ({"extras": '{"model_path": "/etc/passwd"}'}, {}, 400, "extras is not supported"),
        ({}, {"vm": "true"}, 400, "vm is not supported"),
        ({}, {"a": "perhaps"}, 422, "a: must be true or false"),
        ({}, {"af": "256"}, 422, "af: must be a whole number, 0 to 255"),
        ({}, {"ae": "-1"}, 422, "ae: must be a whole number, 0"),
        ({"bgc": "1,2"}, {}, 422, "bgc"),
        ({"bgc": "1,2,256,0"}, {}, 422, "bgc"),
        ({"bgc": "red"}, {}, 422, "bgc"),
    ],
)
def test_what_cannot_be_done_is_told(
    query: dict[str, str], fields: dict[str, str], status: int, told: str
) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        post(query, **fields)
    assert caught.value.status == status
    assert told in error_json(caught.value)["detail"]


def test_a_picture_is_required() -> None:
    with pytest.raises(Refusal, match="file: required"):
        parse_request({}, Form({"file": "a text"}))
    with pytest.raises(Refusal, match="url: required"):
        parse_request({}, None)


@given(
    st.dictionaries(
        st.sampled_from(["model", "a", "af", "ab", "ae", "om", "ppm", "dc", "vm", "bgc", "extras"]),
        st.text(max_size=12) | st.from_regex(r"\A[0-9]{1,3}(,[0-9]{1,3}){0,4}\Z"),
    )
)
def test_any_fields_are_a_request_or_a_refusal(fields: dict[str, str]) -> None:
    try:
        told = post(fields, **fields).source == b"a photo"
    except Refusal as refused:
        told = refused.status in (400, 422)
    assert told

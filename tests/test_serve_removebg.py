"""remove.bg's API: how requests are parsed, and the headers and JSON of answers."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgx.errors import BackgroundError, RegionError, UsageError
from bgx.serve.apis import RemoveBgApi
from bgx.serve.removebg.answer import (
    ACCOUNT,
    answer_headers,
    answer_json,
    error_json,
    picture_refusal,
    rate_headers,
)
from bgx.serve.removebg.request import parse_request
from bgx.serve.requests import CutoutRequest, Form, Link, Refusal

PHOTO = b"a photo"

FIELDS = [
    *("image_url", "image_file_b64", "size", "type", "format", "roi", "crop", "crop_margin"),
    *("scale", "position", "channels", "shadow_type", "shadow_opacity", "add_shadow"),
    *("semitransparency", "bg_color", "bg_image_url"),
]


def parse(**texts: str) -> CutoutRequest:
    """A request with a file and these fields."""
    return parse_request(Form(texts, {"image_file": PHOTO}))


def refusal(texts: dict[str, str] | None = None, files: dict[str, bytes] | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_request(Form(texts or {}, {"image_file": PHOTO} if files is None else files))
    assert caught.value.status == 400
    return caught.value


def test_a_file_alone_gives_a_small_png() -> None:
    assert parse() == CutoutRequest(PHOTO, {"format": "png", "resize": "0.25MP"}, kind="other")


def test_the_source_may_come_as_base64_or_address() -> None:
    encoded = base64.b64encode(PHOTO).decode()
    for text in (
        encoded,
        encoded.rstrip("="),
        f"data:image/png;base64,{encoded}",
        f"{encoded}\r\n",
    ):
        assert parse_request(Form({"image_file_b64": text})).source == PHOTO
    source = parse_request(Form({"image_url": "https://photos.example/a.jpg"})).source
    assert isinstance(source, Link)
    assert source.url == "https://photos.example/a.jpg"
    assert source.refuse("why", True).code == "invalid_image_url"
    assert source.refuse("why", False).code == "failed_image_download"


def test_a_plus_that_a_form_turned_into_a_space_is_read() -> None:
    data = b"photo!" + b"\xfb\xef\xbe" * 5
    text = base64.b64encode(data).decode()
    assert "+" in text
    assert parse_request(Form({"image_file_b64": text.replace("+", " ")})).source == data


@given(st.binary(min_size=1))
def test_base64_of_any_bytes_is_read(data: bytes) -> None:
    text = base64.encodebytes(data).decode()
    assert parse_request(Form({"image_file_b64": text})).source == data


@pytest.mark.parametrize(
    ("texts", "files", "code"),
    [
        ({}, {}, "missing_source"),
        ({"image_url": "undefined", "image_file_b64": ""}, {}, "missing_source"),
        ({"image_url": "http://x.example/"}, {"image_file": PHOTO}, "multiple_sources"),
        ({"image_url": "http://x.example/", "image_file_b64": "AAAA"}, {}, "multiple_sources"),
        ({"image_file": "a text"}, {}, "invalid_file_type"),
        ({"image_file_b64": "§§§"}, {}, "failed_to_read_image"),
        ({"bg_image_file": "a text"}, {"image_file": PHOTO}, "invalid_file_type"),
    ],
)
def test_sources_are_checked(texts: dict[str, str], files: dict[str, bytes], code: str) -> None:
    assert refusal(texts, files).code == code


@pytest.mark.parametrize("nothing", ["", "  ", "undefined", "null", "NULL"])
def test_fields_that_wrappers_leave_empty_are_left_out(nothing: str) -> None:
    assert parse(**dict.fromkeys(FIELDS, nothing)) == parse()


@pytest.mark.parametrize(
    ("size", "file_format", "limit"),
    [
        ("preview", "png", "0.25MP"),
        ("small", "png", "0.25MP"),
        ("regular", "jpg", "0.25MP"),
        ("medium", "png", "1.5MP"),
        ("hd", "png", "4MP"),
        ("full", "png", "10MP"),
        ("4k", "auto", "10MP"),
        ("full", "jpg", "25MP"),
        ("full", "webp", "25MP"),
        ("full", "zip", "25MP"),
        ("auto", "png", "10MP"),
        ("50MP", "jpg", "50MP"),
        ("50MP", "png", "50MP"),
        ("FULL", "JPG", "25MP"),
    ],
)
def test_a_size_limits_the_result(size: str, file_format: str, limit: str) -> None:
    assert parse(size=size, format=file_format).options["resize"] == limit


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({}, "png"),
        ({"bg_color": "red"}, "jpg"),
        ({"bg_color": "ff000080"}, "png"),
        ({"bg_color": "#f00f"}, "jpg"),
        ({"bg_color": "red", "channels": "alpha"}, "png"),
        ({"bg_color": "red", "format": "webp"}, "webp"),
        ({"format": "jpeg"}, "jpg"),
        ({"format": "zip"}, "png"),
    ],
)
def test_the_format_fits_the_transparency(fields: dict[str, str], chosen: str) -> None:
    wanted = parse(**fields)
    assert wanted.options["format"] == chosen
    assert wanted.package == ("zip" if fields.get("format") == "zip" else "picture")


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("fff", "#ffffff"),
        ("#81d4fa", "#81d4fa"),
        ("81d4fa77", "#81d4fa77"),
        ("#1234", "#11223344"),
        ("Green", "#008000"),
        ("rebeccapurple", "#663399"),
        ("bad", "#bbaadd"),
        ("transparent", "#00000000"),
    ],
)
def test_colours_come_as_digits_or_names(text: str, colour: str) -> None:
    assert parse(bg_color=text).options["background"] == colour


def test_an_image_may_be_the_background() -> None:
    wanted = parse_request(Form({}, {"image_file": PHOTO, "bg_image_file": b"beach"}))
    assert (wanted.background, wanted.options["format"]) == (b"beach", "jpg")
    assert "background" not in wanted.options
    linked = parse(bg_image_url="http://beach.example/").background
    assert isinstance(linked, Link)
    assert linked.refuse("why", True).code == "invalid_bg_image_url"
    assert linked.refuse("why", False).code == "failed_bg_download"


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"crop": "true"}, {"crop": True}),
        ({"crop": "1", "crop_margin": "0"}, {"crop": True}),
        ({"crop": "true", "crop_margin": "10%"}, {"crop": True, "margin": "10%"}),
        ({"crop": "true", "crop_margin": "10% 20px"}, {"crop": True, "margin": "10% 20px"}),
        ({"crop": "true", "crop_margin": "1 2px 3% 4"}, {"crop": True, "margin": "1px 2px 3% 4px"}),
        ({"crop_margin": "10%"}, {}),
        ({"crop": "false"}, {}),
        (
            {"scale": "80%"},
            {"canvas": "original", "align": "center", "fill": "80%", "upscale": True},
        ),
        (
            {"scale": "80%", "position": "10% 90%"},
            {"canvas": "original", "align": "10% 90%", "fill": "80%", "upscale": True},
        ),
        (
            {"scale": "80%", "position": "original"},
            {"canvas": "original", "align": "original", "fill": "80%", "upscale": True},
        ),
        ({"position": "center"}, {"canvas": "original", "align": "center"}),
        ({"position": "25%"}, {"canvas": "original", "align": "25% 25%"}),
        (
            {"position": "original", "scale": "original"},
            {"canvas": "original", "align": "original"},
        ),
        ({"position": "original"}, {}),
        ({"channels": "alpha"}, {"mask_only": True}),
        ({"shadow_type": "drop"}, {"shadow": "soft"}),
        ({"shadow_type": "drop", "shadow_opacity": "40"}, {"shadow": "soft:40%"}),
        ({"add_shadow": "true"}, {"shadow": "soft"}),
        ({"add_shadow": "true", "shadow_type": "none"}, {}),
        ({"type": "person", "shadow_type[person]": "drop"}, {"shadow": "soft"}),
        ({"type": "person", "shadow_type[car]": "car"}, {}),
        ({"semitransparency": "false"}, {"matte": "solid"}),
        ({"roi": "0% 0% 100% 100%"}, {"region": "0%,0%,100%,100%"}),
        ({"roi": "10 20px 30% 40%"}, {"region": "10px,20px,30%,40%"}),
        ({"roi": "0.00002% 0 1234.5678 50%"}, {"region": "0.00002%,0px,1234.5678px,50%"}),
        ({"position": "0.00002%"}, {"canvas": "original", "align": "0.00002% 0.00002%"}),
    ],
)
def test_fields_become_options(fields: dict[str, str], options: dict[str, Any]) -> None:
    assert parse(**fields).options == {"format": "png", "resize": "0.25MP"} | options


@pytest.mark.parametrize(
    ("field", "text", "code"),
    [
        ("size", "enormous", "invalid_size"),
        ("format", "gif", "invalid_format"),
        ("channels", "rgb", "invalid_channels"),
        ("crop", "perhaps", "invalid_crop"),
        ("crop_margin", "51%", "invalid_crop_margin"),
        ("crop_margin", "501px", "invalid_crop_margin"),
        ("crop_margin", "1 2 3", "invalid_crop_margin"),
        ("crop_margin", "-1", "invalid_crop_margin"),
        ("crop_margin", "ten", "invalid_crop_margin"),
        ("scale", "9%", "invalid_scale"),
        ("scale", "101%", "invalid_scale"),
        ("scale", "80", "invalid_scale"),
        ("position", "101%", "invalid_position"),
        ("position", "left", "invalid_position"),
        ("position", "1% 2% 3%", "invalid_position"),
        ("roi", "1 2 3", "invalid_roi"),
        ("roi", "1 2 3 x", "invalid_roi"),
        ("roi", "0% 0% 101% 100%", "roi_exceeds_bounds"),
        ("roi", "60 0 50 50", "roi_region_empty"),
        ("bg_color", "notacolor", "invalid_bg_color"),
        ("bg_color", "#12345", "invalid_bg_color"),
        ("semitransparency", "maybe", "invalid_semitransparency"),
        ("shadow_type", "car", "unsupported_shadow_type"),
        ("shadow_type", "3D", "unsupported_shadow_type"),
        ("shadow_type", "long", "invalid_shadow_type"),
        ("shadow_opacity", "101", "invalid_shadow_opacity"),
    ],
)
def test_what_cannot_be_done_has_its_code(field: str, text: str, code: str) -> None:
    refused = refusal({field: text})

    assert refused.code == code
    assert error_json(refused)["errors"][0]["code"] == code


def test_a_photos_error_names_the_field_and_not_the_option() -> None:
    error = RegionError("picture: --region 0px,0px,9px,9px reaches beyond the photo")
    refused = RemoveBgApi(lambda: (1, 1, 0.0)).refusal_for(error)
    assert refused.detail == "picture: roi 0px,0px,9px,9px reaches beyond the photo"


def test_two_backgrounds_are_one_too_many() -> None:
    assert refusal({"bg_color": "red", "bg_image_url": "http://x.example/"}).code == (
        "multiple_bg_sources"
    )


@given(
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.text(max_size=20) | st.from_regex(r"\A[0-9]{1,3}(%|px)?( [0-9]{1,3}(%|px)?){0,3}\Z"),
    )
)
def test_any_fields_are_a_request_or_a_refusal_with_a_code(texts: dict[str, str]) -> None:
    try:
        told = parse_request(Form(texts, {"image_file": PHOTO})).source == PHOTO
    except Refusal as refused:
        told = refused.status == 400 and bool(refused.code and refused.title)
    assert told


FACTS = {
    "width": 50,
    "height": 40,
    "full_width": 500,
    "full_height": 400,
    "bbox": (5, 6, 45, 36),
}


def test_headers_describe_the_result() -> None:
    assert answer_headers(FACTS, "person") == {
        "X-Width": "50",
        "X-Height": "40",
        "X-Max-Width": "500",
        "X-Max-Height": "400",
        "X-Credits-Charged": "0",
        "X-Type": "person",
        # Of the photo, which was ten times as large.
        "X-Foreground-Top": "60",
        "X-Foreground-Left": "50",
        "X-Foreground-Width": "400",
        "X-Foreground-Height": "300",
    }
    assert "X-Type" not in answer_headers(FACTS, None)
    nothing = answer_headers(FACTS | {"bbox": None}, None)
    assert nothing["X-Foreground-Width"] == "0"


@pytest.mark.parametrize(
    ("photo", "largest"),
    [((10_000, 5_000), ("7071", "3535")), ((6000, 4500), ("5773", "4330")), ((9, 1), ("9", "1"))],
)
def test_the_largest_size_is_that_of_size_full(
    photo: tuple[int, int], largest: tuple[str, str]
) -> None:
    facts = FACTS | {"full_width": photo[0], "full_height": photo[1]}
    headers = answer_headers(facts, None)
    assert (headers["X-Max-Width"], headers["X-Max-Height"]) == largest


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({}, "other"),
        ({"type": "auto"}, "other"),
        ({"type": "Person"}, "person"),
        ({"type": "person", "type_level": "none"}, None),
        ({"type": "a\r\nSet-Cookie: b"}, "other"),
    ],
)
def test_the_hint_comes_back(fields: dict[str, str], kind: str | None) -> None:
    assert parse(**fields).kind == kind


def test_the_json_answer_holds_the_picture() -> None:
    answer = answer_json(b"png", FACTS)["data"]
    assert base64.b64decode(answer.pop("result_b64")) == b"png"
    assert answer == {
        "foreground_top": 60,
        "foreground_left": 50,
        "foreground_width": 400,
        "foreground_height": 300,
    }


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        ("too-large", 400, "resolution_too_high"),
        ("no-subject", 400, "unknown_foreground"),
        ("unreadable", 400, "failed_to_read_image"),
        ("inference", 500, "processing_failed"),
    ],
)
def test_a_picture_that_failed_has_remove_bgs_code(code: str, status: int, told: str) -> None:
    refused = picture_refusal(code, "why")
    assert (refused.status, refused.code, refused.detail) == (status, told, "why")


def test_a_bad_background_is_told_by_the_kind_of_its_error() -> None:
    api = RemoveBgApi(lambda: (1, 1, 0.0))
    assert api.refusal_for(BackgroundError("is truncated")).code == "invalid_bg_image_file"
    assert api.refusal_for(UsageError("--model background.onnx: no such file")).code == "usage"


def test_rate_headers_never_promise_less_than_nothing() -> None:
    headers = rate_headers(10, -2, 3.5)
    assert headers["X-RateLimit-Limit"] == "10"
    assert headers["X-RateLimit-Remaining"] == "0"
    assert headers["X-RateLimit-Reset"].isdigit()


def test_an_account_is_charged_nothing() -> None:
    attributes = ACCOUNT["data"]["attributes"]
    assert attributes["credits"]["total"] == 0
    assert attributes["api"]["sizes"] == "all"

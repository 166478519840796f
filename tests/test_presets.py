"""Presets and the forms options are written in."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest

from bgx.errors import UsageError
from bgx.options import make_output
from bgx.presets import expand_preset, find_preset, load_presets
from bgx.settings import Backdrop, CanvasSettings, Length, OutputSettings, Shadow

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, OutputSettings()),
        ({"margin": "3%"}, OutputSettings(canvas=CanvasSettings(margin=Length(3, "%")))),
        ({"margin": "40px"}, OutputSettings(canvas=CanvasSettings(margin=Length(40, "px")))),
        ({"margin": "2.5 %"}, OutputSettings(canvas=CanvasSettings(margin=Length(2.5, "%")))),
        ({"margin": 40}, OutputSettings(canvas=CanvasSettings(margin=Length(40, "px")))),
        ({"canvas": "2000x1500"}, OutputSettings(canvas=CanvasSettings(size=(2000, 1500)))),
        ({"canvas": "square"}, OutputSettings(canvas=CanvasSettings(aspect=(1, 1)))),
        ({"canvas": "4:5"}, OutputSettings(canvas=CanvasSettings(aspect=(4, 5)))),
        ({"fill": "85%"}, OutputSettings(canvas=CanvasSettings(fill=0.85))),
        ({"resize": "1200"}, OutputSettings(canvas=CanvasSettings(resize=(1200, 1200)))),
        ({"resize": 1200}, OutputSettings(canvas=CanvasSettings(resize=(1200, 1200)))),
        ({"resize": "1200x800"}, OutputSettings(canvas=CanvasSettings(resize=(1200, 800)))),
        ({"background": "#fff"}, OutputSettings(background=(255, 255, 255))),
        ({"background": (1, 2, 3)}, OutputSettings(background=(1, 2, 3))),
        ({"background": "blur"}, OutputSettings(background=Backdrop("blur"))),
        ({"background": "blur:12.5"}, OutputSettings(background=Backdrop("blur", 12.5))),
        ({"background": "original-greyed"}, OutputSettings(background=Backdrop("grey"))),
        ({"shadow": "none"}, OutputSettings()),
        ({"shadow": "soft"}, OutputSettings(shadow=Shadow("soft", 0.35))),
        ({"shadow": "contact:80%"}, OutputSettings(shadow=Shadow("contact", 0.8))),
        ({"max_bytes": "10MB"}, OutputSettings(max_bytes=10_000_000)),
        ({"max_bytes": "1.5 kB"}, OutputSettings(max_bytes=1500)),
        ({"max_bytes": 99}, OutputSettings(max_bytes=99)),
        ({"crop": True, "quality": None}, OutputSettings(canvas=CanvasSettings(crop=True))),
    ],
)
def test_what_people_write_becomes_settings(options: Any, expected: OutputSettings) -> None:
    assert make_output(**options) == expected


def test_a_background_may_be_a_file(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf.jpg"
    shelf.write_bytes(b"")
    assert make_output(background=str(shelf)).background == shelf


@pytest.mark.parametrize(
    "options",
    [
        {"margin": "-3%"},
        {"margin": "wide"},
        {"canvas": "2000"},
        {"canvas": "2000x"},
        {"canvas": "golden"},
        {"fill": "0.85"},
        {"fill": "130%"},
        {"resize": "50%"},
        {"background": "no-such-file.jpg"},
        {"background": "blur:wide"},
        {"background": "blur:0"},
        {"background": "blur:nan"},
        {"shadow": "hard"},
        {"shadow": "soft:1"},
        {"shadow": "soft:140%"},
        {"max_bytes": "10 pounds"},
        {"max_bytes": "0"},
        {"colour": "cmyk"},
        {"mask_only": True, "shadow": "soft"},
        {"mask_only": True, "background": "white"},
    ],
)
def test_what_makes_no_sense_is_refused_with_the_option_and_a_remedy(options: Any) -> None:
    with pytest.raises(UsageError) as raised:
        make_output(**options)
    message = str(raised.value)
    assert message.startswith("--" + next(iter(options)).replace("_", "-"))
    assert "\n" not in message


def test_every_preset_says_its_rule_and_its_date() -> None:
    presets = load_presets()
    assert {"amazon", "ebay", "google", "shopify"} <= presets.keys()
    for name, preset in presets.items():
        assert preset.name == name
        assert preset.rule
        assert preset.written <= datetime.datetime.now(tz=datetime.UTC).date()
        assert make_output(**preset.options).canvas.size


def test_the_amazon_preset_is_amazons_rule() -> None:
    output = make_output(**find_preset("amazon").options)
    assert output == OutputSettings(
        format="jpg",
        background=(255, 255, 255),
        canvas=CanvasSettings(size=(2000, 2000), fill=0.85),
        max_bytes=10_000_000,
        colour="srgb",
    )


_OWN = """
[shop]
rule = "what our shop shows"
written = 2026-01-31
[shop.options]
format = "webp"
quality = 80
canvas = "4:5"
resize = "1600"
max-bytes = "300kB"
keep-metadata = false
"""


def _add(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Path:
    file = folder / "presets.toml"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("BGX_PRESETS", str(file))
    return file


def test_users_add_presets_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ebay = find_preset("ebay")
    _add(monkeypatch, tmp_path, _OWN + _OWN.replace("shop", "amazon"))
    presets = load_presets()
    assert presets["shop"].rule == "what our shop shows"
    assert make_output(**presets["shop"].options).max_bytes == 300_000
    assert presets["amazon"].rule == "what our amazon shows"
    assert presets["ebay"] == ebay


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        ({"margin": "3%"}, {"fill"}),
        ({"mask_only": True}, {"background"}),
        ({"mask_only": False}, set()),
        ({"margin": None}, set()),
    ],
)
def test_what_contradicts_an_option_given_is_left_out(given: Any, gone: set[str]) -> None:
    preset = find_preset("amazon").options
    options = expand_preset("amazon", given)
    assert set(preset) - set(options) == gone
    make_output(**options)


@pytest.mark.parametrize(
    ("preset", "given", "canvas"),
    [
        ("amazon", {"resize": "1000"}, CanvasSettings(aspect=(1, 1), resize=(1000, 1000))),
        ("amazon", {"resize": None}, CanvasSettings(size=(2000, 2000))),
        ("shop", {"canvas": "900x600"}, CanvasSettings(size=(900, 600))),
        ("shop", {"canvas": "3:2"}, CanvasSettings(aspect=(3, 2), resize=(1600, 1600))),
    ],
)
def test_of_two_sizes_the_one_given_counts(
    preset: str,
    given: Any,
    canvas: CanvasSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _add(monkeypatch, tmp_path, _OWN)
    made = make_output(**expand_preset(preset, given)).canvas
    assert (made.size, made.aspect, made.resize) == (canvas.size, canvas.aspect, canvas.resize)


def test_a_preset_s_quality_is_for_formats_that_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(monkeypatch, tmp_path, _OWN)
    assert "quality" in expand_preset("shop", {"format": "webp"})
    assert "quality" not in expand_preset("shop", {"format": "png"})


def test_options_given_take_the_place_of_the_presets() -> None:
    options = expand_preset("amazon", {"format": "webp", "fill": "90%"})
    output = make_output(**options)
    assert output.format == "webp"
    assert output.canvas == CanvasSettings(size=(2000, 2000), fill=0.9)
    assert output.background == (255, 255, 255)
    assert expand_preset(None, {"crop": True}) == {"crop": True}


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('rule = "what our shop shows"', "", "[shop] rule"),
        ("written = 2026-01-31", 'written = "today"', "[shop] written"),
        ("[shop.options]", "[shop.choices]", "[shop] choices"),
        ("canvas =", "canvass =", "did you mean canvas?"),
        ('"4:5"', '"4:0"', "--canvas 4:0"),
        ("quality = 80", 'quality = "80"', "quality = '80': must be a whole number"),
        ("keep-metadata = false", "keep-metadata = 0", "must be true or false"),
        ("[shop]\n", "[shop\n", "not valid TOML"),
    ],
)
def test_a_wrong_preset_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, words: str
) -> None:
    assert before in _OWN
    file = _add(monkeypatch, tmp_path, _OWN.replace(before, after))
    with pytest.raises(UsageError) as raised:
        load_presets()
    assert str(raised.value).startswith(str(file))
    assert words in str(raised.value)


def test_a_preset_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="did you mean amazon"):
        find_preset("amazone")
    monkeypatch.setenv("BGX_PRESETS", "nowhere.toml")
    with pytest.raises(UsageError, match=r"nowhere\.toml: cannot be read"):
        load_presets()

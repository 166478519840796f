"""Presets: their options, which other options override them, and errors in their files."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

import pytest

from bgx.errors import UsageError
from bgx.options import CanvasSettings, OutputSettings, settle
from bgx.presets import find_preset, load_presets, preset_options
from bgx.settings import Length, Margins

if TYPE_CHECKING:
    from pathlib import Path


def test_every_preset_says_its_rule_and_its_date() -> None:
    presets = load_presets()
    assert {"amazon", "ebay", "google", "shopify"} <= presets.keys()
    for name, preset in presets.items():
        assert preset.name == name
        assert preset.rule
        assert preset.written <= datetime.datetime.now(tz=datetime.UTC).date()
        assert settle(preset.options).canvas.size


def test_the_amazon_preset_is_amazons_rule() -> None:
    output = settle(preset_options("amazon"))
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
    assert settle(presets["shop"].options).max_bytes == 300_000
    assert presets["amazon"].rule == "what our amazon shows"
    assert presets["ebay"] == ebay


def _with(preset: str, given: Any, **more: Any) -> OutputSettings:
    return settle(given, preset=preset_options(preset), **more)


def test_a_preset_gives_way_to_what_contradicts_it() -> None:
    assert _with("amazon", {"margin": "3%"}).canvas == CanvasSettings(
        size=(2000, 2000), margin=Margins.even(Length(3, "%"))
    )
    assert _with("amazon", {"mask_only": True}).background is None
    assert _with("amazon", {"mask_only": False}).background == (255, 255, 255)
    assert _with("amazon", {"margin": None}) == _with("amazon", {})


@pytest.mark.parametrize(
    ("preset", "given", "canvas"),
    [
        ("amazon", {"resize": "1000"}, CanvasSettings(aspect=(1, 1), resize=(1000, 1000))),
        ("amazon", {"resize": None}, CanvasSettings(size=(2000, 2000))),
        ("shop", {"canvas": "900x600"}, CanvasSettings(size=(900, 600))),
        ("shop", {"canvas": "3:2"}, CanvasSettings(aspect=(3, 2), resize=(1600, 1600))),
        ("odd", {"resize": "500"}, CanvasSettings(aspect=(2001, 1999), resize=(500, 500))),
    ],
)
def test_of_two_sizes_the_one_given_counts(
    preset: str,
    given: Any,
    canvas: CanvasSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd = _OWN.replace("shop", "odd").replace("4:5", "2001x1999").replace("resize =", "# ")
    _add(monkeypatch, tmp_path, _OWN + odd)
    made = _with(preset, given).canvas
    assert (made.size, made.aspect, made.resize) == (canvas.size, canvas.aspect, canvas.resize)


def test_a_preset_s_quality_is_for_formats_that_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add(monkeypatch, tmp_path, _OWN)
    assert _with("shop", {}).quality == 80
    assert _with("shop", {}, target="out.jpg").quality == 80
    assert _with("shop", {"format": "png"}).quality is None
    assert _with("shop", {}, target="out.png").quality is None


def test_options_given_take_the_place_of_the_presets() -> None:
    output = _with("amazon", {"format": "webp", "fill": "90%"})
    assert output.format == "webp"
    assert output.canvas == CanvasSettings(size=(2000, 2000), fill=0.9)
    assert output.background == (255, 255, 255)
    assert settle({"crop": True}, preset=preset_options(None)) == settle({"crop": True})


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

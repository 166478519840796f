"""The table of picture options: what follows from it, and what options come to together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest

from bgx.cli.main import bgx as commands
from bgx.errors import UsageError
from bgx.options import OPTIONS, CanvasSettings, OutputSettings, PictureOptions, settle
from bgx.settings import Area, Backdrop, Length, Margins, Region, Shadow, Tint

if TYPE_CHECKING:
    from pathlib import Path


# The table ----------------------------------------------------------------------------------------


def test_every_option_has_its_setting_and_every_setting_its_option() -> None:
    settings = {*OutputSettings._fields, *CanvasSettings._fields}
    # The option canvas is a size, an aspect or the photo's own size.
    assert settings - {"size", "aspect", "original"} == OPTIONS.keys()
    assert settle({}) == OutputSettings()


def test_a_default_changes_nothing() -> None:
    for name, option in OPTIONS.items():
        if option.default is not None:
            assert option.kind is bool or option.default in option.choices
            assert settle({name: option.default}) == settle({})  # type: ignore[misc]


def test_conflicts_are_with_options_that_there_are() -> None:
    pairs = [
        frozenset((name, conflict.other))
        for name, option in OPTIONS.items()
        for conflict in option.conflicts
    ]
    assert set().union(*pairs) <= OPTIONS.keys()
    assert len(set(pairs)) == len(pairs)


@pytest.mark.parametrize("command", ["remove", "batch"])
def test_the_command_line_follows_the_table(command: str) -> None:
    found = commands.get_command(click.Context(commands), command)
    assert found is not None
    parameters = {parameter.name: parameter for parameter in found.params}
    for name, option in OPTIONS.items():
        parameter = parameters[name]
        assert isinstance(parameter, click.Option)
        assert option.flag in parameter.opts
        assert parameter.is_flag == (option.kind is bool)
        if option.choices:
            assert isinstance(parameter.type, click.Choice)
            assert tuple(parameter.type.choices) == option.choices
        assert parameter.help is not None
        assert parameter.help.startswith(option.help)


def test_python_s_options_are_the_table() -> None:
    assert list(PictureOptions.__annotations__) == list(OPTIONS)


# What people write --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, OutputSettings()),
        (
            {"margin": "3%"},
            OutputSettings(canvas=CanvasSettings(margin=Margins.even(Length(3, "%")))),
        ),
        (
            {"margin": "40px"},
            OutputSettings(canvas=CanvasSettings(margin=Margins.even(Length(40, "px")))),
        ),
        (
            {"margin": "2.5 %"},
            OutputSettings(canvas=CanvasSettings(margin=Margins.even(Length(2.5, "%")))),
        ),
        (
            {"margin": 40},
            OutputSettings(canvas=CanvasSettings(margin=Margins.even(Length(40, "px")))),
        ),
        (
            {"margin": "3% 40"},
            OutputSettings(
                canvas=CanvasSettings(
                    margin=Margins(
                        Length(3, "%"), Length(40, "px"), Length(3, "%"), Length(40, "px")
                    )
                )
            ),
        ),
        (
            {"margin": "1px 2 % 3 4px"},
            OutputSettings(
                canvas=CanvasSettings(
                    margin=Margins(
                        Length(1, "px"), Length(2, "%"), Length(3, "px"), Length(4, "px")
                    )
                )
            ),
        ),
        ({"canvas": "original"}, OutputSettings(canvas=CanvasSettings(original=True))),
        ({"align": "bottom"}, OutputSettings(canvas=CanvasSettings(align="bottom"))),
        ({"align": "20%"}, OutputSettings(canvas=CanvasSettings(align=(0.2, 0.2)))),
        ({"align": "20% 100%"}, OutputSettings(canvas=CanvasSettings(align=(0.2, 1.0)))),
        ({"resize": "0.25MP"}, OutputSettings(canvas=CanvasSettings(resize=Area(250_000)))),
        ({"resize": "4 mp"}, OutputSettings(canvas=CanvasSettings(resize=Area(4_000_000)))),
        (
            {"region": "10%,0,90%,400px"},
            OutputSettings(
                region=Region(Length(10, "%"), Length(0, "px"), Length(90, "%"), Length(400, "px"))
            ),
        ),
        (
            {"region": (10, 0, 90.5, 400)},
            OutputSettings(
                region=Region(
                    Length(10, "px"), Length(0, "px"), Length(90.5, "px"), Length(400, "px")
                )
            ),
        ),
        (
            {"region": " 1 %, 2, 3 %, 4px "},
            OutputSettings(
                region=Region(Length(1, "%"), Length(2, "px"), Length(3, "%"), Length(4, "px"))
            ),
        ),
        ({"keep": "largest"}, OutputSettings(keep="largest")),
        ({"threshold": "0.5"}, OutputSettings(threshold=0.5)),
        ({"threshold": 1}, OutputSettings(threshold=1.0)),
        ({"shift": "-1px"}, OutputSettings(shift=-1.0)),
        ({"shift": "+2.5 px"}, OutputSettings(shift=2.5)),
        ({"shift": -0.5}, OutputSettings(shift=-0.5)),
        ({"shift": "0"}, OutputSettings()),
        ({"soften": "2px"}, OutputSettings(soften=2.0)),
        ({"soften": 1.5}, OutputSettings(soften=1.5)),
        ({"soften": ".5"}, OutputSettings(soften=0.5)),
        ({"background": "#ff000080"}, OutputSettings(background=Tint((255, 0, 0), 128))),
        ({"background": b"a file"}, OutputSettings(background=b"a file")),
        ({"matte": "solid"}, OutputSettings(matte="solid")),
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
    assert settle(options, open_format=True) == expected


def test_a_background_may_be_a_file(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf.jpg"
    shelf.write_bytes(b"")
    assert settle({"background": str(shelf)}).background == shelf


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
        {"canvas": "0x10"},
        {"canvas": "10x40000"},
        {"canvas": "0:1"},
        {"resize": "0"},
        {"fill": "0%"},
        {"margin": "20000px"},
        {"align": "top"},
        {"matte": "rough"},
        {"quality": 0},
        {"quality": 101},
        {"quality": True},
        {"quality": 90, "format": "png"},
        {"resize": "50", "canvas": "100x100"},
        {"fill": "50%", "margin": "3%"},
        {"margin": "45px", "canvas": "100x90"},
        {"margin": "50px", "canvas": "10:1", "resize": "999"},
        {"margin": "1px 2px 3px"},
        {"margin": ""},
        {"align": "101%"},
        {"align": "1% 2% 3%"},
        {"resize": "0MP"},
        {"region": "0,0,10px"},
        {"region": "10px,0,10px,5px"},
        {"region": "0%,0%,101%,100%"},
        {"region": "90,0,10,50"},
        {"region": (0, 0, 10)},
        {"region": "-5,0,10,10"},
        {"region": "a,b,c,d"},
        {"region": 7},
        {"keep": "center"},
        {"threshold": "half"},
        {"threshold": "0"},
        {"threshold": 1.01},
        {"threshold": "nan"},
        {"threshold": "50%"},
        {"shift": "wide"},
        {"shift": "2%"},
        {"shift": "-101px"},
        {"shift": "1e2"},
        {"soften": "-1px"},
        {"soften": "."},
        {"soften": 101},
        {"soften": "inf"},
        {"background": "#12345"},
        {"mask_only": True, "shadow": "soft"},
        {"mask_only": True, "background": "white"},
    ],
)
def test_what_makes_no_sense_is_refused_with_the_option_and_a_remedy(options: Any) -> None:
    with pytest.raises(UsageError) as raised:
        settle(options)
    message = str(raised.value)
    assert message.startswith("--" + next(iter(options)).replace("_", "-"))
    assert "\n" not in message


@pytest.mark.parametrize(
    "options", [{"fill": "100.4%"}, {"fill": "0.5%"}, {"shadow": "soft:100.4%"}], ids=str
)
def test_a_value_is_told_as_it_was_typed(options: Any) -> None:
    """Rounded, it would be within the bounds that the message gives."""
    [(name, value)] = options.items()
    with pytest.raises(UsageError, match=f"--{name} {value}: use"):
        settle(options)


# Together -----------------------------------------------------------------------------------------


def test_what_is_typed_comes_before_the_environment_and_that_before_a_preset() -> None:
    typed: PictureOptions = {"fill": "50%"}
    environment: PictureOptions = {"fill": "60%", "align": "bottom"}
    preset: PictureOptions = {"fill": "70%", "align": "center", "upscale": True}
    canvas = settle(typed, environment=environment, preset=preset).canvas
    assert canvas == CanvasSettings(fill=0.5, align="bottom", upscale=True)


@pytest.mark.parametrize(
    ("typed", "below", "same"),
    [
        ({"margin": "3%"}, {"fill": "80%"}, {"margin": "3%"}),
        ({"fill": "80%"}, {"margin": "3%"}, {"fill": "80%"}),
        ({"mask_only": True}, {"shadow": "soft", "background": "red"}, {"mask_only": True}),
        ({"shadow": "soft"}, {"mask_only": True}, {"shadow": "soft"}),
        ({"shadow": "none"}, {"mask_only": True}, {"mask_only": True}),
        ({"canvas": "90x60"}, {"resize": "50"}, {"canvas": "90x60"}),
        ({"canvas": "3:2"}, {"resize": "50"}, {"canvas": "3:2", "resize": "50"}),
        ({"resize": "50"}, {"canvas": "90x60"}, {"canvas": "3:2", "resize": "50"}),
        ({"fill": "80%"}, {"fill": "9%", "margin": "3%"}, {"fill": "80%"}),
    ],
)
@pytest.mark.parametrize("layer", ["environment", "preset"])
def test_what_contradicts_an_option_of_higher_precedence_gives_way(
    typed: Any, below: Any, same: Any, layer: str
) -> None:
    layers: Any = {layer: below}
    assert settle(typed, **layers) == settle(same)


@pytest.mark.parametrize("layer", ["environment", "preset"])
def test_two_that_contradict_each_other_in_one_place_are_an_error(layer: str) -> None:
    layers: Any = {layer: {"margin": "3%", "fill": "80%"}}
    with pytest.raises(UsageError, match="--fill and --margin both set"):
        settle({}, **layers)


@pytest.mark.parametrize(
    ("typed", "environment", "preset", "target", "expected"),
    [
        ({}, {}, {}, None, ("png", None)),
        ({}, {}, {}, "a.jpg", ("jpg", None)),
        ({}, {}, {}, "s3://bucket/a.JPEG", ("jpg", None)),
        ({}, {}, {"format": "webp"}, None, ("webp", None)),
        ({}, {"format": "avif"}, {"format": "webp"}, None, ("avif", None)),
        ({"format": "tiff"}, {"format": "avif"}, {"format": "webp"}, None, ("tiff", None)),
        ({}, {"format": "avif"}, {"format": "webp"}, "a.jpg", ("jpg", None)),
        ({"format": "jpg"}, {}, {}, "a.jpg", ("jpg", None)),
        ({"format": "jpg"}, {}, {}, "a.part", ("jpg", None)),
        ({}, {}, {"format": "jpg"}, "a", ("jpg", None)),
        ({"quality": 7}, {"quality": 8}, {"quality": 9}, "a.jpg", ("jpg", 7)),
        ({}, {"quality": 8}, {"format": "jpg", "quality": 9}, None, ("jpg", 8)),
        ({}, {"quality": 8}, {"format": "jpg", "quality": 9}, "a.png", ("png", None)),
        ({"format": "png"}, {"quality": 8}, {"format": "jpg", "quality": 9}, None, ("png", None)),
    ],
)
def test_format_and_quality(
    typed: Any, environment: Any, preset: Any, target: str | None, expected: tuple[str, int | None]
) -> None:
    output = settle(typed, environment=environment, preset=preset, target=target)
    assert (output.format, output.quality) == expected


@pytest.mark.parametrize(
    ("typed", "target", "words"),
    [
        ({"format": "jpg"}, "a.png", "a.png: the suffix does not match --format jpg"),
        ({}, "a.gif", "a.gif: unknown suffix; use .png"),
        ({"quality": 80}, "a.png", "--quality has no meaning for png"),
        ({"quality": 80}, None, "--quality has no meaning for png"),
        ({"quality": 80, "format": "tiff"}, "a", "--quality has no meaning for tiff"),
    ],
)
def test_a_format_that_does_not_fit(typed: Any, target: str | None, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        settle(typed, target=target)
    assert str(raised.value).startswith(words)


def test_a_quality_waits_for_the_format_of_a_cut_out_that_is_saved_later() -> None:
    assert settle({"quality": 80}, open_format=True).quality == 80
    with pytest.raises(UsageError, match="--quality has no meaning for png"):
        settle({"quality": 80, "format": "png"}, open_format=True)

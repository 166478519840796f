"""The registry: what its tables may say, and what a user is told who writes a wrong one."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgx.errors import ExitCode, UnknownModelError, UsageError
from bgx.model.registry import (
    ModelEntry,
    entry_from_table,
    find_entry,
    find_family,
    load_registry,
)

if TYPE_CHECKING:
    from pathlib import Path

OWN = """
[shoes]
input = [256, 192]
mean = [0.5, 0.5, 0.5]
std = [1, 1, 1]
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("field", ["scale = 1" + "0" * 400, "about = " + "[" * 5000 + "]" * 5000])
def test_a_table_nobody_would_write(tmp_path: Path, field: str) -> None:
    with pytest.raises(UsageError, match=r"own\.toml"):
        load_registry(write(tmp_path / "own.toml", OWN + field))


def test_the_built_in_registry_can_be_fetched_and_checked() -> None:
    registry = load_registry()
    assert list(registry)[:3] == ["u2net", "u2netp", "u2net_human_seg"]
    for entry in registry.values():
        assert (entry.url is None) != (entry.builtin is None)
        assert entry.hash is not None
        assert entry.licence


def test_u2net_is_fed_as_its_authors_feed_it() -> None:
    entry = load_registry()["u2net"]
    assert entry.input == (320, 320)
    assert entry.mean == (0.485, 0.456, 0.406)
    assert entry.std == (0.229, 0.224, 0.225)
    assert entry.scale == "image_max"
    assert (entry.output, entry.activation, entry.stretch) == (0, "none", True)


def test_the_users_tables_override_field_by_field_and_add(tmp_path: Path) -> None:
    own = write(tmp_path / "own.toml", OWN + '[u2netp]\nabout = "ours"\n')
    registry = load_registry(own)
    assert registry["u2netp"].about == "ours"
    assert registry["u2netp"].hash == load_registry()["u2netp"].hash
    assert registry["shoes"].input == (256, 192)
    assert registry["shoes"].url is None
    assert list(registry)[-1] == "shoes"


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("input = [320]", "input"),
        ("input = [0, 320]", "input"),
        ("input = 320", "input"),
        ("input = [true, true]", "input"),
        ('input = "multiple of 0, up to 64"', "input"),
        ('input = "multiple of 64, up to 32"', "input"),
        ('input = "multiple of 32, up to 9999"', "input"),
        ('input = "any"', "input"),
        ("family = 1", "family"),
        ("quality = 1", "quality"),
        ("cost = 1", "cost"),
        ("mean = [0.5, 0.5]", "mean"),
        ("mean = [0.5, 0.5, nan]", "mean"),
        ("std = [1, 0, 1]", "std"),
        ('scale = "max"', "scale"),
        ("scale = 0", "scale"),
        ('url = "http://example.org/x.onnx"', "url"),
        ('url = "https://example.org/x.onnx"', "hash"),
        ('hash = "sha256:abc"', "hash"),
        ('hash = "crc32:00000000"', "hash"),
        ("bytes = 0", "bytes"),
        ("bytes = 1.5", "bytes"),
        ("output = -1", "output"),
        ('activation = "softmax"', "activation"),
        ("stretch = 1", "stretch"),
        ("licence = 1", "licence"),
        ("about = []", "about"),
        ('tried = "yes"', "tried"),
        ("inptu = [1, 1]", "inptu"),
    ],
)
def test_a_wrong_field_is_named_with_its_file_and_table(
    tmp_path: Path, line: str, field: str
) -> None:
    kept = [row for row in OWN.splitlines() if not row.startswith(f"{field} ")]
    own = write(tmp_path / "own.toml", "\n".join([*kept, line]))
    with pytest.raises(UsageError) as caught:
        load_registry(own)
    message = str(caught.value)
    assert message.startswith(f"{own}: [shoes] {field}")
    assert "\n" not in message
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_misspelt_field_suggests_the_right_one(tmp_path: Path) -> None:
    own = write(tmp_path / "own.toml", OWN + "activaton = 'none'\n")
    with pytest.raises(UsageError, match="did you mean activation"):
        load_registry(own)


@pytest.mark.parametrize("field", ["input", "mean", "std"])
def test_a_field_without_a_sensible_default_has_to_be_there(tmp_path: Path, field: str) -> None:
    rows = [row for row in OWN.splitlines() if not row.startswith(field)]
    own = write(tmp_path / "own.toml", "\n".join(rows))
    with pytest.raises(UsageError, match=rf"\[shoes\] {field}: missing"):
        load_registry(own)


@pytest.mark.parametrize("name", ["Shoes", "my shoes", "../shoes", "shoes.onnx", ""])
def test_a_name_has_to_do_as_a_file_name_everywhere(tmp_path: Path, name: str) -> None:
    own = write(tmp_path / "own.toml", OWN.replace("[shoes]", f'["{name}"]'))
    with pytest.raises(UsageError, match="name"):
        load_registry(own)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[shoes\n", "not valid TOML"),
        (b"\xff\xfe", "not UTF-8"),
        (b"shoes = 1\n", "must be a table"),
    ],
)
def test_a_file_that_is_no_registry_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    own = tmp_path / "own.toml"
    own.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        load_registry(own)
    assert str(own) in str(caught.value)


def test_a_registry_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_registry(tmp_path / "none.toml")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
_GOOD = {"input": [8, 8], "mean": [0, 0, 0], "std": [1, 1, 1]}


@settings(max_examples=500)
@given(
    field=st.sampled_from([*ModelEntry.__dataclass_fields__, "other"]),
    value=_VALUES,
)
def test_any_value_makes_an_entry_or_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: Any
) -> None:
    source = tmp_path_factory.getbasetemp() / "own.toml"
    try:
        entry_from_table("shoes", {**_GOOD, field: value}, source)
    except UsageError as error:
        message = str(error)
    else:
        return
    assert message.startswith(f"{source}: [shoes] {field}")
    assert "\n" not in message


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownModelError, match="did you mean u2netp") as caught:
        find_entry(load_registry(), "U2NetP")
    assert caught.value.exit_code is ExitCode.MODEL


def test_an_unknown_name_like_no_other_points_to_the_list() -> None:
    with pytest.raises(UnknownModelError, match="bgx models list"):
        find_entry(load_registry(), "zzzzzz")


def test_a_family_shares_its_settings() -> None:
    registry = load_registry()
    assert find_family(registry, "birefnet").mean == (0.485, 0.456, 0.406)
    assert find_family(registry, "isnet").name == "isnet-general-use"
    assert find_family(registry, "isnet-anime").std == (1.0, 1.0, 1.0)
    with pytest.raises(UsageError, match=r"--as unet: use one of u2net, isnet, birefnet, ben2"):
        find_family(registry, "unet")


@pytest.mark.parametrize(
    ("photo", "fed"),
    [
        ((800, 600), (800, 608)),
        ((4000, 3000), (2048, 1536)),
        ((3000, 4000), (1536, 2048)),
        ((10, 5000), (32, 2048)),
        ((1, 1), (32, 32)),
        ((2040, 2040), (2048, 2048)),
    ],
)
def test_a_free_input_follows_the_photo(photo: tuple[int, int], fed: tuple[int, int]) -> None:
    entry = replace(load_registry()["u2net"], input="multiple of 32, up to 2048")
    assert entry.free
    assert entry.largest == (2048, 2048)
    assert entry.size_for(photo) == fed


def test_a_free_input_is_never_larger_than_it_says() -> None:
    entry = replace(load_registry()["u2net"], input="multiple of 64, up to 1000")
    assert entry.largest == (960, 960)
    assert entry.size_for((1000, 1000)) == (960, 960)


def test_reading_the_registry_loads_nothing_heavy() -> None:
    code = (
        "import sys; from bgx.model.registry import load_registry; load_registry();"
        "print([name for name in ('numpy', 'onnxruntime', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

"""Networks of other forms than the usual one: other layouts, types, ranges, outputs and sizes."""

from __future__ import annotations

import hashlib
import logging
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from PIL import Image

from bgx import Remover
from bgx.errors import BadModelError, InferenceError
from bgx.model.prepared import read_prepared
from bgx.model.store import Store
from bgx.settings import ModelSettings
from support.networks import plain_network, written_network
from support.shell import bgx

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGX_HOME", str(tmp_path / "home"))


def network(
    path: Path,
    end: str,
    *,
    start: str = "p = Identity(image)",
    given: str = "float[1,3,64,64] image",
    returned: str = "float[1,1,64,64] y",
) -> Path:
    """Write a network that finds what differs from the upper left pixel.

    start: makes of `image` what the network computes with, called p. end: makes the output of l,
    logits from -10 to 20 and more, [1, 1, height, width].
    """
    return written_network(
        path,
        f"""net ({given}) => ({returned})
        <int64[2] zeros = {{0, 0}}, int64[2] ones = {{1, 1}}, int64[2] sides = {{2, 3}},
         int64[1] first = {{1}}, int64[2] both = {{0, 1}}, int64[1] up = {{4}},
         float[1] ten = {{10.0}}, float[1] most = {{255.0}}, float[1] nought = {{0.0}},
         float[1] one = {{1.0}}>
        {{
          {start}
          corner = Slice(p, zeros, ones, sides)
          away = Sub(p, corner)
          size = Abs(away)
          mean = ReduceMean<axes = [1]>(size)
          more = Mul(mean, ten)
          l = Sub(more, ten)
          n = Neg(l)
          s = Sigmoid(l)
          {end}
        }}""",
    )


def check(
    file: Path,
    caplog: pytest.LogCaptureFixture,
    said: str,
    *,
    subject: tuple[int, int, int] = (240, 240, 240),
    **options: Any,
) -> None:
    """A square on a dark photo is cut right, and the only line contains `said`."""
    photo = Image.new("RGB", (300, 200), (20, 20, 20))
    photo.paste(subject, (100, 50, 200, 150))
    cut = Remover(str(file), device="cpu", offline=True, **options).cut(photo, refine=False)
    alpha = np.asarray(cut.image.getchannel("A")) / 255
    assert alpha[65:135, 115:185].min() > 0.95
    alpha[40:160, 90:210] = 0
    assert alpha.max() < 0.05
    [line] = {record.message for record in caplog.records if record.levelno == logging.WARNING}
    assert said in line
    assert "\n" not in line


RETURNED = {
    "0..255": ("y = Mul(s, most)", "float[1,1,64,64] y", "0..255 made 0..1"),
    "clipped 0..255": (
        "m = Mul(s, most) y = Clip(m, nought, most)",
        "float[1,1,64,64] y",
        "0..255 made 0..1",
    ),
    "uint8": ("m = Mul(s, most) y = Cast<to = 2>(m)", "uint8[1,1,64,64] y", "0..255 made 0..1"),
    "-1..1": ("y = Tanh(l)", "float[1,1,64,64] y", "-1..1 made 0..1"),
    "0 and more": ("y = Clip(l, nought, ten)", "float[1,1,64,64] y", "0..10 made 0..1"),
    "softmax": (
        "c = Concat<axis = 1>(n, l) y = Softmax<axis = 1>(c)",
        "float[1,2,64,64] y",
        "channel 1 of 2",
    ),
    "softmax, subject first": (
        "c = Concat<axis = 1>(l, n) y = Softmax<axis = 1>(c)",
        "float[1,2,64,64] y",
        "channel 0 of 2",
    ),
    "two logits": ("y = Concat<axis = 1>(n, l)", "float[1,2,64,64] y", "channel 1 of 2"),
    "two logits, subject first": (
        "y = Concat<axis = 1>(l, n)",
        "float[1,2,64,64] y",
        "channel 0 of 2",
    ),
    "two channels, last": (
        "c = Concat<axis = 1>(n, l) f = Softmax<axis = 1>(c) y = Transpose<perm = [0, 2, 3, 1]>(f)",
        "float[1,64,64,2] y",
        "channel 1 of 2",
    ),
    "two channels that the file does not count": (
        "c = Concat<axis = 1>(n, l) y = Softmax<axis = 1>(c)",
        "float[1,c,64,64] y",
        "channel 1 of 2",
    ),
    "two channels beside one": (
        "two = Concat<axis = 1>(l, l) y = Identity(s)",
        "float[1,2,64,64] two, float[1,1,64,64] y",
        "output 1 of 2, already",
    ),
    "classes": (
        "c = Concat<axis = 1>(n, l) y = ArgMax<axis = 1, keepdims = 0>(c)",
        "int64[1,64,64] y",
        "classes other than 0",
    ),
    "many classes": (
        "c = Concat<axis = 1>(n, n, n, l) y = ArgMax<axis = 1>(c)",
        "int64[1,1,64,64] y",
        "classes other than 0",
    ),
    "classes, subject first": (
        "c = Concat<axis = 1>(l, n) y = ArgMax<axis = 1, keepdims = 0>(c)",
        "int64[1,64,64] y",
        "class 0",
    ),
    "channel last": (
        "y = Transpose<perm = [0, 2, 3, 1]>(s)",
        "float[1,64,64,1] y",
        "already in 0..1",
    ),
    "height and width": ("y = Squeeze(s, both)", "float[64,64] y", "already in 0..1"),
    "double": ("y = Cast<to = 11>(s)", "double[1,1,64,64] y", "already in 0..1"),
    "bool": ("y = Greater(l, nought)", "bool[1,1,64,64] y", "already in 0..1"),
    "no shape": ("y = Identity(l)", "float y", "sigmoid added"),
    "of several, the one called so": (
        "back = Sub(one, s) detail = Mul(s, back) matte = Identity(s)",
        "float[1,1,64,64] detail, float[1,1,64,64] matte",
        "output 1 of 2",
    ),
    "of several without shapes, the largest": (
        "side = AveragePool<kernel_shape = [8, 8], strides = [8, 8]>(s) y = Identity(s)",
        "float[n,1,a,b] side, float[n,1,c,d] y",
        "output 1 of 2",
    ),
}


@pytest.mark.parametrize("form", RETURNED)
def test_every_form_of_output_is_cut_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    end, returned, said = RETURNED[form]
    if form == "no shape":
        file = network(tmp_path / "mine.onnx", end)
        model = onnx.load(file)
        model.graph.output[0].type.tensor_type.ClearField("shape")
        onnx.save(model, file)
    else:
        file = network(tmp_path / "mine.onnx", end, returned=returned)
    check(file, caplog, said)


TAKEN = {
    "channels last": (
        "float[1,64,64,3] image",
        "p = Transpose<perm = [0, 3, 1, 2]>(image)",
        "usual settings, channels last, 64 x 64",
    ),
    "channels last, any size": (
        "float[1,h,w,3] image",
        "p = Transpose<perm = [0, 3, 1, 2]>(image)",
        "channels last, any size",
    ),
    "uint8": (
        "uint8[1,3,64,64] image",
        "c = Cast<to = 1>(image) p = Div(c, ten)",
        "pixels as 0..255",
    ),
    "uint8, channels last": (
        "uint8[1,64,64,3] image",
        "c = Cast<to = 1>(image) d = Div(c, ten) p = Transpose<perm = [0, 3, 1, 2]>(d)",
        "pixels as 0..255, channels last",
    ),
    "double": ("double[1,3,64,64] image", "p = Cast<to = 1>(image)", "usual settings"),
    "half": ("float16[1,3,64,64] image", "p = Cast<to = 1>(image)", "usual settings"),
    "four at once": ("float[4,3,64,64] image", "p = Identity(image)", "64 x 64"),
}


@pytest.mark.parametrize("form", TAKEN)
def test_every_form_of_input_is_cut_right(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: str
) -> None:
    given, start, said = TAKEN[form]
    file = network(
        tmp_path / "mine.onnx",
        "y = Identity(s)",
        start=start,
        given=given,
        returned="float[a,1,b,c] y",
    )
    check(file, caplog, said)


MEAN = "Constant<value = float[1,3,1,1] {0.485, 0.456, 0.406}>()"
DEVIATION = "Constant<value = float[1,3,1,1] {0.229, 0.224, 0.225}>()"

BEGIN = {
    "a mean and a deviation": (f"m = {MEAN} d = {DEVIATION} a = Sub(image, m) p = Div(a, d)", 1),
    "the same for 0..255": (
        f"m = {MEAN} d = {DEVIATION} i = Div(image, most) a = Sub(i, m) p = Div(a, d)",
        255,
    ),
    "a division": ("p = Div(image, most)", 255),
    "a multiplication to 0..255": ("q = Mul(image, most) p = Sub(q, ten)", 1),
    "a mean alone": (
        "m = Constant<value = float[3] {123.7, 116.3, 103.5}>() p = Sub(image, m)",
        255,
    ),
}


@pytest.mark.parametrize("begin", BEGIN)
def test_a_graph_that_begins_with_the_scaling_is_not_fed_scaled_pixels(
    tmp_path: Path, begin: str
) -> None:
    start, most = BEGIN[begin]
    file = network(tmp_path / "mine.onnx", "y = Identity(s)", start=start)
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    entry = store.resolve(str(file), store.registry()).entry
    assert (entry.mean, entry.std, entry.scale) == ((0, 0, 0), (1, 1, 1), 255 / most)


@pytest.mark.parametrize(
    ("told", "feed"),
    [
        ("NominalRange_0_255", (0, 1, 1)),
        ("Normalized_0_1", (0, 1, 255)),
        ("Normalized_1_1", (0.5, 0.5, 255)),
    ],
)
def test_metadata_tell_the_range_of_pixels(
    tmp_path: Path, told: str, feed: tuple[float, float, float]
) -> None:
    model = onnx.load(plain_network(tmp_path / "mine.onnx"))
    model.metadata_props.add(key="Image.NominalPixelRange", value=told)
    onnx.save(model, tmp_path / "mine.onnx")
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    entry = store.resolve(str(tmp_path / "mine.onnx"), store.registry()).entry
    assert (entry.mean[0], entry.std[0], entry.scale) == feed


def test_metadata_tell_that_blue_comes_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # It finds only what differs in its first channel.
    file = network(
        tmp_path / "mine.onnx",
        "y = Identity(s)",
        start="p = Slice(image, nothing, first, first)",
    )
    model = onnx.load(file)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "nothing"))
    model.metadata_props.add(key="Image.BitmapPixelFormat", value="Bgr8")
    onnx.save(model, file)
    check(file, caplog, "blue first", subject=(20, 20, 240))


@pytest.mark.parametrize(
    ("multiple", "said"),
    [
        (14, "any size in multiples of 14"),
        (16, "any size,"),
        (64, "any size in multiples of 64"),
        (512, "512 x 512"),
    ],
)
def test_a_network_that_needs_multiples_of_a_size_gets_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, multiple: int, said: str
) -> None:
    # It cuts its input into patches, which fails for other sizes.
    file = network(
        tmp_path / "mine.onnx",
        "y = Identity(s)",
        given="float[1,3,h,w] image",
        returned="float[1,1,a,b] y",
        start=f"""side = Constant<value = int64[1] {{{multiple}}}>()
        where = Constant<value = int64[1] {{2}}>() until = Constant<value = int64[1] {{3}}>()
        three = Constant<value = int64[1] {{3}}>()
        full = Shape(image) high = Slice(full, where, until) wide = Slice(full, until, up)
        down = Div(high, side) across = Div(wide, side)
        cells = Concat<axis = 0>(first, three, down, side, across, side)
        cut = Reshape(image, cells) p = Reshape(cut, full)""",
    )
    check(file, caplog, said)


def test_a_family_does_not_force_a_size_that_does_not_run(tmp_path: Path) -> None:
    file = network(
        tmp_path / "mine.onnx",
        "y = Identity(s)",
        given="float[1,3,h,w] image",
        returned="float[1,1,a,b] y",
        # 500 x 500 pixels and no other
        start="""edge = Constant<value = int64[4] {1, 3, 500, 500}>() p = Reshape(image, edge)""",
    )
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True, family="u2net"))
    with pytest.raises(BadModelError, match="give it a table with its `input`") as caught:
        store.resolve(str(file), store.registry())
    assert str(caught.value).startswith(f"{file}: does not run: ")

    fits = network(
        tmp_path / "fits.onnx",
        "y = Identity(s)",
        given="float[1,3,h,w] image",
        returned="float[1,1,a,b] y",
        start="""edge = Constant<value = int64[4] {1, 3, 256, 256}>() p = Reshape(image, edge)""",
    )
    for _ in range(2):
        assert store.resolve(str(fits), store.registry()).entry.input == (256, 256)
    plain = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    assert plain.resolve(str(fits), plain.registry()).entry.input == (256, 256)


def test_too_many_channels_that_the_file_does_not_count_are_refused(tmp_path: Path) -> None:
    file = network(
        tmp_path / "mine.onnx",
        "c = Concat<axis = 1>(n, l, l) y = Softmax<axis = 1>(c)",
        given="float[1,3,h,w] image",
        returned="float[1,c,h,w] y",
    )
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    with pytest.raises(BadModelError, match=r"has 1 output, none of them one matte .*width\]$"):
        store.resolve(str(file), store.registry())


def test_workers_compare_the_file_and_not_its_copy(tmp_path: Path) -> None:
    file = network(
        tmp_path / "mine.onnx",
        "y = Identity(s)",
        given="float[1,64,64,3] image",
        start="p = Transpose<perm = [0, 3, 1, 2]>(image)",
    )
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert store.identify(str(file), store.registry()) == ("file", digest)
    found = store.resolve(str(file), store.registry())
    assert found.entry.hash == digest != found.digest


def test_a_network_of_another_range_is_prepared_as_others(tmp_path: Path) -> None:
    file = plain_network(tmp_path / "mine.onnx")
    model = onnx.load(file)
    model.graph.node.append(onnx.helper.make_node("Mul", ["matte", "most"], ["wide"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([255]), "most"))
    model.graph.output[0].name = "wide"
    onnx.save(model, file)
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    found = store.resolve(str(file), store.registry())
    assert found.path != file
    assert read_prepared(found, store)


def test_messages_name_the_file_and_not_its_copy(tmp_path: Path) -> None:
    file = network(
        tmp_path / "mine.onnx",
        "never = Sub(nought, nought) y = Div(s, never)",
        given="float[1,64,64,3] image",
        start="p = Transpose<perm = [0, 3, 1, 2]>(image)",
    )
    with pytest.raises(InferenceError, match=re.escape(f"{file} returned NaN or infinity")):
        Remover(str(file), device="cpu", offline=True).cut(Image.new("RGB", (9, 9)))


def test_a_network_of_another_form_keeps_it_when_it_is_added(
    tmp_path: Path,
) -> None:
    file = network(
        tmp_path / "mine.onnx",
        "m = Mul(s, most) y = Transpose<perm = [0, 2, 3, 1]>(m)",
        given="float[1,64,64,3] image",
        start="p = Transpose<perm = [0, 3, 1, 2]>(image)",
        returned="float[1,64,64,1] y",
    )
    assert bgx("models", "add", "shoes", file).code == 0
    file.unlink()
    photo = Image.new("RGB", (300, 200), (20, 20, 20))
    photo.paste((240, 240, 240), (100, 50, 200, 150))
    alpha = (
        Remover("shoes", device="cpu", offline=True).cut(photo, refine=False).image.getchannel("A")
    )
    assert alpha.getpixel((150, 100)) == 255
    assert alpha.getpixel((20, 20)) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty, damaged or cut short"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\n<html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(100), "torch.onnx.export"),
        (b"\x80\x04\x95" + bytes(100), "torch.onnx.export"),
        (b"\x18\x00\x00\x00ORTM" + bytes(100), "ONNX Runtime's own format"),
    ],
)
def test_what_is_no_network_is_told_apart(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(content)
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    with pytest.raises(BadModelError, match=said) as caught:
        store.resolve(str(file), store.registry())
    assert str(caught.value).startswith(f"{file}: not a network: ")
    assert "\n" not in str(caught.value)


def test_a_cut_short_file_is_told(tmp_path: Path) -> None:
    file = plain_network(tmp_path / "mine.onnx")
    file.write_bytes(file.read_bytes()[:-1])
    store = Store(ModelSettings(folder=tmp_path / "store", offline=True))
    with pytest.raises(BadModelError, match="cut short"):
        store.resolve(str(file), store.registry())

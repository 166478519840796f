"""A network file that the registry does not know: inspected, run, and reported."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from bgx import Remover
from bgx.errors import BadModelError, UsageError
from bgx.model.opening import open_session
from bgx.model.store import Store
from bgx.model.trial import check_network
from bgx.settings import DeviceSettings, ModelSettings
from support.networks import halved, plain_network, tiny_network

if TYPE_CHECKING:
    from pathlib import Path

    from bgx.model.registry import ModelEntry


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(ModelSettings(folder=tmp_path / "store", offline=True))


def entry_of(store: Store, file: Path) -> ModelEntry:
    return store.resolve(str(file), store.registry()).entry


def coverage(file: Path, **options: Any) -> tuple[float, float]:
    """Mean alpha on a light square of a dark photo, and around it, both 0..1."""
    photo = Image.new("RGB", (300, 200), (20, 20, 20))
    photo.paste((240, 240, 240), (100, 50, 200, 150))
    cut = Remover(str(file), device="cpu", offline=True, **options).cut(photo, refine=False)
    alpha = np.asarray(cut.image.getchannel("A")) / 255
    inside = alpha[60:140, 110:190].mean()
    alpha[40:160, 90:210] = 0
    return float(inside), float(alpha.mean())


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BGX_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, "512 x 512, output 0 of 1, already in 0..1"),
        ({"logits": True}, "512 x 512, output 0 of 1, sigmoid added"),
        ({"size": (256, 384)}, "256 x 384"),
        ({"size": None}, "any size"),
        ({"size": None, "logits": True}, "any size, output 0 of 1, sigmoid added"),
        ({"sides": 2}, "output 2 of 3, already in 0..1"),
        ({"flat": True}, "512 x 512, output 0 of 1"),
    ],
    ids=str,
)
def test_a_file_without_a_table_is_cut_right_and_the_line_says_what_it_took(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, form: dict[str, Any], said: str
) -> None:
    inside, outside = coverage(plain_network(tmp_path / "mine.onnx", **form))
    assert inside > 0.95
    assert outside < 0.05
    [line] = {record.message for record in caplog.records if record.levelno == logging.WARNING}
    assert said in line
    assert "mine.onnx: unknown family" in line
    assert "--as" in line
    assert "\n" not in line


@pytest.mark.parametrize("ports", [False, True])
def test_half_precision_is_cut_right(tmp_path: Path, ports: bool) -> None:
    fine = plain_network(tmp_path / "fine.onnx")
    inside, outside = coverage(halved(fine, tmp_path / "mine.onnx", ports=ports))
    assert inside > 0.95
    assert outside < 0.05


def test_what_was_seen_is_kept(store: Store, tmp_path: Path) -> None:
    file = plain_network(tmp_path / "mine.onnx", logits=True)
    first = entry_of(store, file)
    [record] = store.facts.iterdir()
    assert json.loads(record.read_bytes())["bounded"] is False
    assert entry_of(store, file) == first
    record.write_bytes(b"{}")
    assert entry_of(store, file) == first
    record.write_bytes(b"\xff no JSON")
    assert entry_of(store, file) == first


@pytest.mark.parametrize(
    ("layer", "family"),
    [
        ("squeeze_module.0.conv_in.weight", "birefnet"),
        ("conv_in.weight", "isnet"),
        ("stage1.rebnconvin.conv_s1.weight", "u2net"),
        ("multifieldcrossatt.attention.0.weight", "ben2"),
    ],
)
def test_the_names_of_layers_tell_the_family(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, layer: str, family: str
) -> None:
    model = onnx.load(plain_network(tmp_path / "mine.onnx"))
    model.graph.node[0].name = layer
    onnx.save(model, tmp_path / "mine.onnx")
    found = entry_of(store, tmp_path / "mine.onnx")
    like = next(entry for entry in store.registry().values() if entry.family == family)
    assert (found.mean, found.std, found.scale) == (like.mean, like.std, like.scale)
    assert found.input == (512, 512)
    assert found.activation == "none"  # its own sigmoid stands at its end
    assert f"settings of {family}" in caplog.text


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("BiRefNet-general-epoch_244 (1)", "birefnet"),
        ("my isnet", "isnet"),
        ("U-2-Net_shoes", "u2net"),
        ("BEN2_Base", "ben2"),
    ],
)
def test_the_name_of_the_file_tells_the_family(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, family: str
) -> None:
    entry_of(store, plain_network(tmp_path / f"{name}.onnx", logits=True))
    assert f"settings of {family}" in caplog.text
    assert "sigmoid added" in caplog.text


def test_a_family_that_is_named_wins_and_nothing_is_said(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = plain_network(tmp_path / "u2net.onnx", logits=True)
    named = Store(replace(store.settings, family="ben2"))
    found = entry_of(named, file)
    assert (found.mean, found.scale) == ((0, 0, 0), 255)
    assert found.input == (512, 512)
    assert found.activation == "sigmoid"
    assert not caplog.records
    assert coverage(file, as_="birefnet")[0] > 0.9


@pytest.mark.parametrize("model", ["u2netp", None])
def test_a_family_is_for_files_alone(store: Store, model: str | None) -> None:
    named = Store(replace(store.settings, family="ben2"))
    with pytest.raises(UsageError, match="--as ben2"):
        named.resolve(model, named.registry())


def test_a_file_called_as_an_entry_is_fed_so(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tiny_network(tmp_path / "silueta.onnx")
    assert entry_of(store, file).name == "silueta"
    assert not caplog.records


REFUSED = {
    "4 channels": ((1, 4, 512, 512), (1, 1, 512, 512), TensorProto.FLOAT),
    "1 channel;": ((1, 1, 512, 512), (1, 1, 512, 512), TensorProto.FLOAT),
    r"\[3, 512, 512\]": ((3, 512, 512), (1, 1, 512, 512), TensorProto.FLOAT),
    "neither float32, float16": ((1, 3, 512, 512), (1, 1, 512, 512), TensorProto.INT32),
    "has 1 output, none of them one matte": (
        (1, 3, 512, 512),
        (1, 21, 512, 512),
        TensorProto.FLOAT,
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_bgx_cannot_feed_is_named_with_the_reason(
    store: Store, tmp_path: Path, reason: str
) -> None:
    source, result, kind = REFUSED[reason]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "wrong",
        [helper.make_tensor_value_info("x", kind, source)],
        [helper.make_tensor_value_info("y", kind, result)],
    )
    file = tmp_path / "mine.onnx"
    onnx.save(helper.make_model(graph), file)
    with pytest.raises(BadModelError, match=reason) as caught:
        entry_of(store, file)
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_a_second_input_is_named(store: Store, tmp_path: Path) -> None:
    model = onnx.load(plain_network(tmp_path / "mine.onnx"))
    model.graph.input.append(
        helper.make_tensor_value_info("trimap", TensorProto.FLOAT, [1, 1, 512, 512])
    )
    onnx.save(model, tmp_path / "mine.onnx")
    with pytest.raises(BadModelError, match=r"has 2 inputs \(image, trimap\)"):
        entry_of(store, tmp_path / "mine.onnx")


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd", "C:\\secret.bin", "a/../../b"])
def test_weights_outside_of_the_files_folder_are_not_read(
    store: Store, tmp_path: Path, place: str
) -> None:
    model = onnx.load(plain_network(tmp_path / "mine.onnx"))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place)
    (tmp_path / "mine.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadModelError, match="outside of its folder"):
        entry_of(store, tmp_path / "mine.onnx")


def apart(folder: Path) -> Path:
    """A network whose weights are in a file of their own, mine.bin."""
    model = onnx.load(plain_network(folder / "plain.onnx"))
    file = folder / "mine.onnx"
    onnx.save(model, file, save_as_external_data=True, location="mine.bin", size_threshold=0)
    return file


def test_weights_beside_the_file_are_read(store: Store, tmp_path: Path) -> None:
    found = store.resolve(str(apart(tmp_path)), store.registry())
    session = open_session(found, DeviceSettings("cpu"), store)
    assert session.run(np.zeros((1, 3, 512, 512), np.float32)).shape == (1, 512, 512)


def test_missing_weights_are_named(store: Store, tmp_path: Path) -> None:
    file = apart(tmp_path)
    entry_of(store, file)
    (tmp_path / "mine.bin").unlink()
    with pytest.raises(BadModelError, match=r"weights are in mine\.bin, which is not beside it"):
        entry_of(store, file)


def test_a_network_is_added_with_its_weights(store: Store, tmp_path: Path) -> None:
    file = apart(tmp_path)
    added = store.add("mine", file, store.registry(), check=check_network)
    (tmp_path / "mine.bin").unlink()
    session = open_session(added, DeviceSettings("cpu"), store)
    assert session.run(np.full((1, 3, 512, 512), 2, np.float32)).min() > 0.9


@pytest.mark.parametrize("name", ["u2netp", "mine"])
def test_a_page_is_no_network_by_any_name(store: Store, tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.onnx"
    file.write_bytes(b"<html>404</html>")
    for refused in (
        lambda: entry_of(store, file),
        lambda: store.add(name, file, store.registry(), check=check_network),
    ):
        with pytest.raises(BadModelError, match="not a network: a web page"):
            refused()


@pytest.mark.parametrize("content", [b"", b"no network", bytes(1000)])
def test_what_is_no_network_is_said_to_be_none(
    store: Store, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "mine.onnx"
    file.write_bytes(content)
    with pytest.raises(BadModelError, match="not a network"):
        open_session(store.resolve(str(file), store.registry()), DeviceSettings("cpu"), store)


def test_photos_of_every_shape_go_through_a_network_of_free_size(tmp_path: Path) -> None:
    remover = Remover(
        str(plain_network(tmp_path / "mine.onnx", size=None)), device="cpu", offline=True
    )
    photos = [Image.new("RGB", size, "white") for size in ((300, 200), (20, 900), (1, 1))]
    cut = list(remover.cut_many(photos, refine=False))
    assert [found.image.size for found in cut] == [photo.size for photo in photos]  # type: ignore[union-attr]

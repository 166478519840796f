"""Model files on this machine: found, verified, added, removed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from bgx.errors import (
    BadModelError,
    ExitCode,
    MissingModelError,
    ModelError,
    UnknownModelError,
    UsageError,
)
from bgx.model.opening import open_session
from bgx.model.registry import ModelEntry, builtin_file, load_registry
from bgx.model.rembg import rembg_paths
from bgx.model.store import ModelFile, Store
from bgx.model.trial import check_network
from bgx.settings import DeviceSettings, ModelSettings
from support.networks import plain_network, tiny_network


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(ModelSettings(folder=tmp_path / "store", offline=True))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_network(tmp_path_factory.mktemp("network") / "tiny.onnx")


def sha256(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def md5(path: Path) -> str:
    return f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"


def entry(name: str = "u2netp", file_hash: str | None = None) -> ModelEntry:
    return replace(load_registry()["u2netp"], name=name, hash=file_hash, url=None, bytes=None)


def add(store: Store, name: str, file: Path) -> ModelFile:
    return store.add(name, file, store.registry(), check=check_network)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def everything(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_without_settings_files_lie_in_the_platforms_cache() -> None:
    folder = Store().folder
    assert folder.name == "bgx"
    assert folder.is_absolute()


def test_an_added_file_wins_over_the_published_hash(store: Store, network: Path) -> None:
    added = add(store, "u2netp", network)
    assert added.origin == "added"
    assert added.digest == sha256(network)
    found = store.resolve("u2netp", store.registry())
    assert found.path.read_bytes() == network.read_bytes()
    assert found.path.parent == store.models
    assert (found.digest, found.origin) == (added.digest, "added")
    assert found.entry == load_registry()["u2netp"]


def test_a_new_name_is_listed_and_fed_as_u2net(store: Store, network: Path) -> None:
    add(store, "shoes", network)
    listed = store.registry()["shoes"]
    published = load_registry()["u2net"]
    assert (listed.input, listed.mean, listed.std) == (
        published.input,
        published.mean,
        published.std,
    )
    assert listed.hash == sha256(network)
    assert listed.url is None
    assert not listed.tried
    assert store.resolve("shoes", store.registry()).origin == "added"


def test_a_new_name_takes_the_settings_of_the_files_stem(store: Store, tmp_path: Path) -> None:
    file = tiny_network(tmp_path / "isnet-anime.onnx", size=(1024, 1024))
    add(store, "drawings", file)
    assert store.registry()["drawings"].input == (1024, 1024)


def test_a_file_of_one_s_own_is_under_nobody_s_licence(store: Store, network: Path) -> None:
    assert add(store, "mine", network).entry.licence == "unknown"


def test_a_file_that_says_how_it_is_fed_is_fed_so(store: Store, network: Path) -> None:
    lite = store.registry()["lite"]
    own = builtin_file("lite.onnx")
    add(store, "mine", network)
    assert add(store, "mine", own).entry.feed == lite.feed
    assert store.registry()["mine"].feed == lite.feed
    assert add(store, "lite", own).entry.feed == lite.feed
    with pytest.raises(
        UsageError, match="has other settings than u2netp; add it under another name"
    ):
        add(store, "u2netp", own)


def test_a_damaged_fallback_is_passed_over(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    put(store.models / "silueta.onnx", b"junk")
    assert store.resolve(None, store.registry()).entry.name == "lite"
    assert "silueta.onnx: damaged or replaced" in caplog.text


def test_a_disk_that_is_full_costs_no_network(
    store: Store, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = add(store, "mine", network)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bgx.model.store.write_whole", full)
    with pytest.raises(ModelError, match="No space left"):
        add(store, "mine", network)
    monkeypatch.undo()
    assert store.locate(store.registry()["mine"]) == before._replace(entry=before.entry)


@pytest.mark.parametrize("digest", [["x"], 7, {}])
def test_a_record_s_hash_may_be_anything(store: Store, network: Path, digest: object) -> None:
    add(store, "u2netp", network)
    record = store.models / "u2netp.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"hash": digest}))
    with pytest.raises(BadModelError, match="damaged or replaced"):
        store.locate(store.registry()["u2netp"])


def test_adding_again_replaces(store: Store, network: Path, tmp_path: Path) -> None:
    add(store, "shoes", network)
    other = tiny_network(tmp_path / "other.onnx", note="another file")
    add(store, "shoes", other)
    assert store.resolve("shoes", store.registry()).digest == sha256(other)


@pytest.mark.parametrize("name", ["mine", "u2netp"])
def test_between_the_two_steps_of_an_add_the_old_file_is_still_good(
    store: Store, network: Path, tmp_path: Path, name: str
) -> None:
    """For a look-up at the same time, and for good where the process is killed there."""
    old = add(store, name, network)
    other = tiny_network(tmp_path / "other.onnx", note="another file")
    asked_before = store.registry()
    new = add(store, name, other)
    for registry in (asked_before, store.registry()):
        assert store.resolve(name, registry).digest == new.digest

    # The record is written first, the file follows.
    new.path.write_bytes(network.read_bytes())

    for registry in (asked_before, store.registry()):
        found = store.resolve(name, registry)
        assert (found.digest, found.entry.feed) == (old.digest, old.entry.feed)
    # Anything else is not.
    new.path.write_bytes(b"damaged")
    with pytest.raises(BadModelError, match="damaged or replaced"):
        store.resolve(name, store.registry())


def test_between_the_two_steps_of_an_add_a_downloaded_file_is_still_good(
    store: Store, network: Path, tmp_path: Path
) -> None:
    registry = {"u2netp": replace(load_registry()["u2netp"], hash=sha256(network))}
    path = put(store.models / "u2netp.onnx", network.read_bytes())
    downloaded = store.resolve("u2netp", registry)
    store = Store(replace(store.settings, registry=tmp_path / "models.toml"))
    (tmp_path / "models.toml").write_text(f'[u2netp]\nhash = "{sha256(network)}"\n')
    add(store, "u2netp", tiny_network(tmp_path / "other.onnx", note="another file"))

    path.write_bytes(network.read_bytes())

    assert store.resolve("u2netp", registry).digest == downloaded.digest


def test_a_name_that_is_fed_otherwise_from_now_on_is_never_fed_in_the_old_way(
    store: Store, network: Path
) -> None:
    add(store, "mine", network)
    asked_before = store.registry()
    new = add(store, "mine", builtin_file("lite.onnx"))

    assert store.resolve("mine", asked_before).entry.feed == new.entry.feed
    assert store.resolve("mine", asked_before).digest == new.digest


@pytest.mark.parametrize("content", [b"", b"no network at all", bytes(4096)])
def test_garbage_is_refused_and_nothing_replaced(
    store: Store, network: Path, tmp_path: Path, content: bytes
) -> None:
    add(store, "u2netp", network)
    before = everything(store.models)
    garbage = put(tmp_path / "garbage.onnx", content)
    with pytest.raises(BadModelError) as caught:
        add(store, "u2netp", garbage)
    assert str(garbage) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code is ExitCode.MODEL
    assert everything(store.models) == before
    assert store.resolve("u2netp", store.registry()).digest == sha256(network)


def test_a_network_of_another_input_size_has_a_name_of_its_own(
    store: Store, tmp_path: Path
) -> None:
    file = tiny_network(tmp_path / "wide.onnx", size=(640, 384))
    with pytest.raises(BadModelError, match=r"\[1, 3, 384, 640\].*BGX_MODELS"):
        add(store, "u2netp", file)
    add(store, "shoes", file)
    assert store.registry()["shoes"].input == (640, 384)


@pytest.mark.parametrize(
    ("size", "kept"), [(None, "multiple of 32, up to 1024"), ((512, 256), (512, 256))]
)
def test_an_added_file_keeps_what_was_seen_in_it(
    store: Store, tmp_path: Path, size: tuple[int, int] | None, kept: object
) -> None:
    file = plain_network(tmp_path / "mine.onnx", size=size, logits=True)
    entry = add(store, "shoes", file).entry
    assert (entry.input, entry.activation) == (kept, "sigmoid")
    listed = store.registry()["shoes"]
    assert listed.feed == entry.feed
    assert store.resolve("shoes", store.registry()).entry.feed == entry.feed


def test_an_added_file_is_fed_as_the_family_says(store: Store, network: Path) -> None:
    named = Store(replace(store.settings, family="isnet"))
    assert add(named, "shoes", network).entry.std == (1.0, 1.0, 1.0)
    assert store.resolve("shoes", store.registry()).entry.std == (1.0, 1.0, 1.0)
    with pytest.raises(UsageError, match="has a table of its own"):
        add(named, "u2netp", network)


@pytest.mark.parametrize("name", ["../shoes", "Shoes", "a b", ""])
def test_a_name_that_is_no_file_name_is_refused(store: Store, network: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name"):
        add(store, name, network)
    assert everything(store.folder) == set()


def test_adding_a_file_that_is_not_there(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match=r"none\.onnx"):
        add(store, "shoes", tmp_path / "none.onnx")


def test_a_folder_that_cannot_be_written_is_named(network: Path, tmp_path: Path) -> None:
    occupied = put(tmp_path / "occupied", b"")
    store = Store(ModelSettings(folder=occupied))
    with pytest.raises(ModelError, match="BGX_HOME") as caught:
        add(store, "shoes", network)
    assert str(occupied) in str(caught.value)


@pytest.mark.parametrize("remembered", [True, False], ids=["stamped", "new"])
def test_a_damaged_file_is_named_with_the_remedy(
    store: Store, network: Path, remembered: bool
) -> None:
    path = add(store, "u2netp", network).path
    if remembered:
        store.resolve("u2netp", store.registry())
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadModelError, match="bgx models add u2netp FILE") as caught:
        store.resolve("u2netp", store.registry())
    assert str(path) in str(caught.value)
    assert not store.present(store.registry()["u2netp"])


def test_a_fetched_file_that_was_damaged_asks_to_be_fetched_again(store: Store) -> None:
    path = put(store.models / "u2netp.onnx", b"half a file")
    with pytest.raises(BadModelError, match="bgx models download u2netp") as caught:
        store.resolve("u2netp", store.registry())
    assert str(path) in str(caught.value)


def test_a_file_is_hashed_once_and_verify_hashes_again(store: Store, network: Path) -> None:
    path = add(store, "u2netp", network).path
    known = store.resolve("u2netp", store.registry())
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    # Same size and time: trusted without being read, which is what makes the start fast ...
    assert store.resolve("u2netp", store.registry()) == known
    # ... until somebody wants to know.
    with pytest.raises(BadModelError):
        store.verify(store.registry()["u2netp"])
    with pytest.raises(BadModelError):
        store.resolve("u2netp", store.registry())


def test_a_newer_file_of_the_same_content_is_still_good(store: Store, network: Path) -> None:
    path = add(store, "u2netp", network).path
    known = store.resolve("u2netp", store.registry())
    os.utime(path, ns=(0, 0))
    assert store.resolve("u2netp", store.registry()) == known
    assert store.verify(store.registry()["u2netp"]) == known


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"path": 1}', b"\xff"])
def test_a_damaged_stamp_is_made_anew(store: Store, network: Path, content: bytes) -> None:
    add(store, "u2netp", network)
    known = store.resolve("u2netp", store.registry())
    [stamp] = (store.folder / "stamps").iterdir()
    stamp.write_bytes(content)
    assert store.resolve("u2netp", store.registry()) == known


def test_stamps_that_cannot_be_kept_do_no_harm(tmp_path: Path, network: Path) -> None:
    put(tmp_path / "store" / "stamps", b"a file where the folder should be")
    store = Store(ModelSettings(folder=tmp_path / "store"))
    add(store, "u2netp", network)
    assert store.resolve("u2netp", store.registry()).digest == sha256(network)


def test_a_damaged_record_hides_one_name_only(
    store: Store, network: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(store, "shoes", network)
    add(store, "bags", network)
    (store.models / "shoes.json").write_text("{", encoding="utf-8")
    registry = store.registry()
    assert "shoes" not in registry
    assert "bags" in registry
    assert "bgx models add shoes FILE" in caplog.text
    add(store, "shoes", network)
    assert "shoes" in store.registry()


def test_what_a_killed_process_left_behind_is_no_network(
    store: Store, network: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(store, "shoes", network)
    caplog.clear()
    put(store.models / ".bgx-abc123.json", b"")
    put(store.models / ".bgx-abc123.onnx", b"")
    assert [name for name in store.registry() if name not in load_registry()] == ["shoes"]
    assert not caplog.text


def test_only_md5_published_is_enough_and_sha256_is_the_key(store: Store, network: Path) -> None:
    put(store.models / "old.onnx", network.read_bytes())
    found = store.locate(entry("old", md5(network)))
    assert found is not None
    assert found.digest == sha256(network)
    with pytest.raises(BadModelError):
        store.locate(entry("old", "md5:" + "0" * 32))


@pytest.mark.parametrize("known", [sha256, md5])
def test_rembgs_file_is_used_when_its_hash_fits(
    store: Store,
    network: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    known: object,
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "rembg"))
    path = put(tmp_path / "rembg" / "shoes.onnx", network.read_bytes())
    assert callable(known)
    found = store.locate(entry("shoes", known(network)))
    assert found is not None
    assert (found.path, found.origin, found.digest) == (path, "rembg", sha256(network))


def test_rembgs_file_is_passed_over_when_its_hash_does_not_fit(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "rembg"))
    path = put(tmp_path / "rembg" / "u2netp.onnx", b"something else")
    with caplog.at_level(logging.DEBUG):
        assert store.locate(load_registry()["u2netp"]) is None
    assert str(path) in caplog.text
    assert path.read_bytes() == b"something else"


def test_where_rembg_keeps_its_files() -> None:
    home = Path("/home/me")

    def paths(**environment: str) -> list[Path]:
        return rembg_paths("u2net", environment, home)

    assert paths() == [
        home / ".rembg/models/u2net/u2net.onnx",
        home / ".u2net/u2net.onnx",
    ]
    assert paths(REMBG_HOME="/data/rembg")[0] == Path("/data/rembg/models/u2net/u2net.onnx")
    assert paths(REMBG_HOME="~/rembg")[0] == home / "rembg/models/u2net/u2net.onnx"
    assert paths(XDG_DATA_HOME="/xdg") == [
        Path("/xdg/rembg/models/u2net/u2net.onnx"),
        Path("/xdg/.u2net/u2net.onnx"),
        home / ".u2net/u2net.onnx",
    ]
    assert paths(U2NET_HOME="/u", REMBG_HOME="/r") == [
        Path("/u/models/u2net/u2net.onnx"),
        Path("/u/u2net.onnx"),
        home / ".u2net/u2net.onnx",
    ]


def test_a_missing_model_offline_says_what_to_do(store: Store) -> None:
    with pytest.raises(MissingModelError) as caught:
        store.resolve("u2net", store.registry())
    message = str(caught.value)
    assert "bgx models download u2net" in message
    assert "bgx models add u2net FILE.onnx" in message
    assert "\n" not in message
    assert caught.value.exit_code is ExitCode.MODEL
    assert not store.present(store.registry()["u2net"])


def test_an_unknown_name(store: Store) -> None:
    with pytest.raises(UnknownModelError, match="did you mean silueta"):
        store.resolve("siluetta", store.registry())


def test_a_path_is_a_file_and_no_name(store: Store, network: Path) -> None:
    found = store.resolve(str(network), store.registry())
    assert (found.path, found.origin, found.digest) == (network, "file", sha256(network))
    assert found.entry.feed == store.registry()["u2net"].feed


@pytest.mark.parametrize("model", ["none.onnx", "folder/none", "NONE.ONNX", "./u2net"])
def test_a_path_to_nothing_is_named(store: Store, model: str) -> None:
    with pytest.raises(MissingModelError, match="bgx models list") as caught:
        store.resolve(model, store.registry())
    assert str(Path(model)) in str(caught.value)


def test_remove_takes_the_file_and_what_was_recorded(store: Store, network: Path) -> None:
    file = add(store, "shoes", network)
    open_session(file, DeviceSettings("cpu"), store)
    assert everything(store.prepared)
    assert store.remove("shoes") == file.path
    assert everything(store.models) == set()
    assert everything(store.prepared) == set()
    assert "shoes" not in store.registry()


@pytest.mark.parametrize("name", ["u2net", "../victim", "shoes/../../victim"])
def test_remove_touches_nothing_else(store: Store, tmp_path: Path, name: str) -> None:
    victim = put(store.folder / "victim.onnx", b"not yours")
    with pytest.raises(MissingModelError, match="nothing was removed"):
        store.remove(name)
    assert victim.exists()


def test_verify_what_is_not_there(store: Store) -> None:
    with pytest.raises(MissingModelError, match="bgx models download u2net"):
        store.verify(load_registry()["u2net"])


@pytest.mark.weights
def test_the_real_u2netp_is_added_and_runs(store: Store, weights: Path) -> None:
    added = add(store, "u2netp", weights)
    assert store.verify(store.registry()["u2netp"]).digest == added.digest == sha256(weights)

"""Objects in a bucket, against moto's S3 server in a process of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from bgx.errors import OutputError, UnwritableError, UsageError
from bgx.storage import find_folder, match, open_file, open_folder
from support.services import Line, ObjectStore

if TYPE_CHECKING:
    from pathlib import Path

BUCKET = "s3://shop"

ODD = [
    "hüt 1+2.jpg",
    "q?a=1&b#c.jpg",
    "100%2F.jpg",
    "back\\slash.jpg",
    "st*r [1].jpg",
    "n\u0308.jpg",
]


def put(key: str, content: bytes = b"content") -> None:
    open_file(f"{BUCKET}/{key}").write(content)


def keys(folder: str = BUCKET) -> list[str]:
    return [found.below for found in open_folder(folder).walk()]


@pytest.mark.parametrize("key", ODD)
def test_an_odd_key_is_whole(object_store: ObjectStore, key: str) -> None:
    put(f"a b/{key}", key.encode())

    assert keys() == [f"a b/{key}"]
    [found] = open_folder(f"{BUCKET}/a b").walk()
    assert found.file.open().read() == key.encode()
    assert str(found.file) == f"{BUCKET}/a b/{key}"
    assert open_file(str(found.file)) == found.file


def test_a_walk_is_in_order_and_leaves_out_what_is_hidden_or_left_out(
    object_store: ObjectStore,
) -> None:
    names = ["b.jpg", "a/2.jpg", "a/1.jpg", "a.jpg", "z/.hidden/1.jpg", "@eaDir/1.jpg", "out/1.jpg"]
    for name in [*names, ".hidden.jpg", "outside/1.jpg"]:
        put(f"photos/{name}")
    put("photos-2/other.jpg")

    folder = open_folder(f"{BUCKET}/photos/")
    found = [one.below for one in folder.walk(leave_out=[open_folder(f"{BUCKET}/photos/out")])]

    assert found == ["a.jpg", "a/1.jpg", "a/2.jpg", "b.jpg", "outside/1.jpg"]
    assert str(folder) == f"{BUCKET}/photos"


def test_a_listing_knows_what_is_there_without_further_requests(object_store: ObjectStore) -> None:
    put("photos/1.jpg", b"12345")
    [found] = open_folder(f"{BUCKET}/photos").walk()
    names = [f"{number}.jpg" for number in range(100)]
    files = dict(open_folder(f"{BUCKET}/photos").files(names))
    object_store.stop()
    try:
        status = found.file.status()
        assert status is not None
        assert (status.kind, status.size) == ("file", 5)
        assert abs(status.modified / 1e9 - time.time()) < 60
        assert files["1.jpg"].status() == status
        assert list(files) == ["1.jpg"]
    finally:
        object_store.start()


def test_more_than_a_page_is_listed(object_store: ObjectStore) -> None:
    object_store.fill("shop", [f"photos/{number:04}.jpg" for number in range(1100)])

    assert keys() == [f"photos/{number:04}.jpg" for number in range(1100)]


def test_one_name_that_cannot_be_asked_for_costs_its_folder_alone(
    object_store: ObjectStore,
) -> None:
    object_store.fill("shop", ["photos/1.jpg", "photos/bad//2.jpg", "photos/good/3.jpg"])

    found = list(open_folder(f"{BUCKET}/photos").walk())

    assert [one.below for one in found] == ["1.jpg", "bad", "good/3.jpg"]
    assert found[1].error is not None
    assert "a name with an empty part" in str(found[1].error.strerror)
    assert [one.error for one in found[::2]] == [None, None]
    with pytest.raises(OSError, match="an empty part"):
        open_file(f"{BUCKET}/photos/bad//2.jpg").open()
    with pytest.raises(UnwritableError, match="an empty part"):
        open_file(f"{BUCKET}/photos/bad//2.png").write(b"")


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        ("photos//0.jpg", "photos//"),
        ("photos///", "photos//"),
        ("photos/0\x01.jpg", "photos/0\x01.jpg"),
        ("photos/0\x7f/1.jpg", "photos/0\x7f/"),
    ],
)
def test_what_comes_after_a_name_that_cannot_be_asked_for_is_found(
    object_store: ObjectStore, odd: str, named: str
) -> None:
    names = ["1.jpg", "a/2.jpg", "b/3.jpg"]
    object_store.fill("shop", [odd, *(f"photos/{name}" for name in names), "photos/b//4.jpg"])

    closed, *found = open_folder(f"{BUCKET}/photos").walk()

    assert (closed.below, str(closed.file)) == ("", f"{BUCKET}/photos")
    assert closed.error is not None
    assert f": {named}; rename it" in str(closed.error.strerror)
    assert [one.below for one in found if one.error is not None] == ["b"]
    assert {one.below for one in found} <= {*names, "b"}

    object_store.empty("shop")
    object_store.fill("shop", [odd, *(f"photos/{name}" for name in names)])
    _, *found = open_folder(f"{BUCKET}/photos").walk()
    assert [one.below for one in found] == names
    with pytest.raises(OutputError, match="cannot be listed: holds a name with an empty part"):
        dict(open_folder(f"{BUCKET}/photos").files(map(str, range(100))))


@pytest.mark.parametrize(("odd", "folder"), [("photos/1.jpg/", "photos"), ("/1.jpg", "")])
def test_a_name_that_begins_or_ends_with_a_slash_is_told(
    object_store: ObjectStore, odd: str, folder: str
) -> None:
    object_store.fill("shop", [odd])

    [found] = open_folder(f"{BUCKET}/{folder}").walk()

    with pytest.raises(OSError, match="its name begins or ends with a slash"):
        found.file.open()


def test_create_leaves_what_is_there_unless_it_is_empty(object_store: ObjectStore) -> None:
    file = open_file(f"{BUCKET}/cut/1.png")

    assert file.write(b"fir", b"st", create=True)
    assert not file.write(b"second", create=True)
    assert file.open().read() == b"first"
    assert file.write(b"third")
    assert file.open().read() == b"third"
    file.write(b"")
    assert file.write(b"fourth", create=True)
    assert file.head(2) == b"fo"


def test_of_many_that_create_one_wins(object_store: ObjectStore) -> None:
    file = open_file(f"{BUCKET}/cut/1.png")
    start = threading.Barrier(8)
    won: list[bytes] = []

    def create(number: int) -> None:
        content = bytes([number]) * 3_000_000
        start.wait()
        if file.write(content, create=True):
            won.append(content)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [file.open().read()] == won


def test_removing_is_no_error_where_there_is_nothing(object_store: ObjectStore) -> None:
    put("a/1.jpg")
    open_file(f"{BUCKET}/a/1.jpg").remove()
    open_file(f"{BUCKET}/a/1.jpg").remove()

    assert keys() == []


def test_what_is_a_folder(object_store: ObjectStore) -> None:
    put("photos/2024/1.jpg")
    put("photos/2024.jpg/1.jpg")

    assert [
        str(find_folder(f"{BUCKET}{name}")) for name in ("", "/", "/photos", "/photos/2024/")
    ] == [BUCKET, BUCKET, f"{BUCKET}/photos", f"{BUCKET}/photos/2024"]
    assert find_folder(f"{BUCKET}/photo") is None
    assert find_folder(f"{BUCKET}/photos/2024.jpg") is None, "has a suffix and no slash"
    assert find_folder(f"{BUCKET}/photos/2024.jpg/") is not None
    assert match(f"{BUCKET}/photos/2024/1.jpg") == [f"{BUCKET}/photos/2024/1.jpg"]
    assert match(f"{BUCKET}/photos/2024/2.jpg") == []
    folder = open_folder(f"{BUCKET}/photos")
    assert folder.contains(open_folder(f"{BUCKET}/photos/2024"))
    assert not folder.contains(open_folder(f"{BUCKET}/photos-2"))
    assert open_folder(BUCKET).contains(folder)


def test_links_of_a_page_lead_to_objects_beside_it(object_store: ObjectStore) -> None:
    page = open_file(f"{BUCKET}/cut/sheet/page.html")

    assert open_file(f"{BUCKET}/photos/ü 1.jpg").link(page) == "../../photos/%C3%BC%201.jpg"
    assert open_file("s3://other/1 2.jpg").link(page) == "s3://other/1%202.jpg"


def test_the_type_is_that_of_the_suffix(object_store: ObjectStore) -> None:
    put("cut/1.png")

    assert object_store.head("shop", "cut/1.png")["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://", "s3://: names no bucket; use s3://BUCKET/KEY"),
        ("s3://shop", "s3://shop: is a bucket; name an object in it"),
        ("s3://shop/", "s3://shop/: is a bucket; name an object in it"),
    ],
)
def test_names_that_are_no_object(object_store: ObjectStore, name: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_file(name)

    assert str(caught.value) == message


def test_a_missing_bucket_is_told(object_store: ObjectStore) -> None:
    reason = "there is no bucket s3://none; make it, or correct its name"
    with pytest.raises(UsageError, match=rf"^s3://none/in: cannot be searched: {reason}$"):
        find_folder("s3://none/in")
    with pytest.raises(OSError, match=reason):
        open_file("s3://none/1.jpg").open()
    with pytest.raises(OutputError, match=rf"^s3://none/out: cannot be written: {reason}$"):
        open_folder("s3://none/out").make()
    with pytest.raises(OutputError, match=rf"^s3://none/1.png: cannot be written: {reason}; then"):
        open_file("s3://none/1.png").write(b"1", create=True)


def test_a_missing_object_is_told(object_store: ObjectStore) -> None:
    with pytest.raises(FileNotFoundError, match="no such object"):
        open_file(f"{BUCKET}/1.jpg").open()


def test_no_credentials_are_told(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    # Where a cloud's machine has credentials; nobody listens here.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.169.254:1")

    with pytest.raises(OSError, match="no credentials; set AWS_ACCESS_KEY_ID and"):
        open_file(f"{BUCKET}/1.jpg").open()


def test_an_address_that_is_none_is_told(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")

    with pytest.raises(UsageError, match=r"^AWS_ENDPOINT_URL localhost:9000: use an http"):
        open_folder(BUCKET)


def test_where_nobody_answers_the_first_request_says_so_soon(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(object_store.port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")

    with pytest.raises(UsageError, match=r"answer; check the network and AWS_ENDPOINT_URL$"):
        find_folder(BUCKET)


def test_a_cut_line_is_waited_for(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with Line(object_store.port) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
        put("1.jpg", b"1" * 2_000_000)
        line.cut()
        mend = threading.Timer(4.0, line.mend)
        mend.start()

        assert len(open_file(f"{BUCKET}/1.jpg").open().read()) == 2_000_000
        assert open_file(f"{BUCKET}/2.jpg").write(b"2", create=True)
        mend.join()
    [warning] = caplog.messages
    assert warning == f"{BUCKET}: the object store does not answer; trying again"


def test_a_write_whose_answer_got_lost_counts_as_written(
    object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Line(object_store.port) as line:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{line.port}")
        put("0.jpg")
        line.lose_answers()
        mend = threading.Timer(2.0, line.mend)
        mend.start()

        assert open_file(f"{BUCKET}/1.jpg").write(b"mine", create=True)
        mend.join()


def test_a_bucket_to_a_folder(object_store: ObjectStore, tmp_path: Path) -> None:
    """Places of both kinds are told apart."""
    assert not open_folder(BUCKET).contains(open_folder(tmp_path))
    assert not open_folder(tmp_path).contains(open_folder(BUCKET))

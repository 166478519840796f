"""Messages of a cluster: round trips, and hostile ones, which anybody at the broker can send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgx.cluster.order import (
    Picture,
    make_job,
    make_order,
    make_refusal,
    read_order,
    read_outcome,
    write_outcome,
)
from bgx.cluster.process import check_allowed
from bgx.errors import BadModelError, UnreadableError, UsageError
from bgx.image.trust import Trust
from bgx.options import settle
from bgx.run.cutout import Measured
from bgx.run.outcome import Done, Failed, Job, Outcome, Skipped
from bgx.settings import ReadSettings
from bgx.storage import open_file

HASH = "sha256:" + 64 * "0"
PICTURES = [
    Picture(1, "/in/ä.jpg", "/out/ä.png"),
    Picture(2, "/in/\udcff", "/out/b.png", "/r/b.png"),
]


def message(**changes: Any) -> dict[str, Any]:
    """A task's message as a worker receives it, with some fields changed."""
    order = make_order(
        ("u2netp", HASH), "auto", ReadSettings(), ({}, {}, {}), create=True, preview=False
    )
    sent: dict[str, Any] = json.loads(json.dumps(order.to_json(PICTURES)))
    return sent | changes


def test_a_task_arrives_as_it_was_sent() -> None:
    order, pictures = read_order(message())

    assert pictures == PICTURES
    assert (order.model, order.hash, order.create) == ("u2netp", HASH, True)


@pytest.mark.parametrize(
    "layers",
    [
        ({}, {}, {}),
        ({"format": "jpg", "quality": 80}, {"canvas": "100x100"}, {"fill": "85%"}),
        ({"background": "blur:3"}, {"background": "white"}, {}),
        ({"refine": False, "crop": True}, {}, {"resize": "4MP", "max_bytes": "10MB"}),
    ],
)
def test_options_come_to_the_same_on_both_sides(layers: tuple[Any, Any, Any]) -> None:
    typed, environment, preset = layers
    order = make_order(
        ("u2netp", HASH), "auto", ReadSettings(), layers, create=False, preview=False
    )
    arrived, _ = read_order(json.loads(json.dumps(order.to_json(PICTURES))))

    assert arrived.output == settle(typed, environment=environment, preset=preset)


def test_a_background_s_file_goes_along(tmp_path: Path) -> None:
    paper = tmp_path / "paper.png"
    paper.write_bytes(b"a picture")
    layers: Any = ({"background": str(paper)}, {}, {})
    order = make_order(
        ("u2netp", HASH), "auto", ReadSettings(), layers, create=False, preview=False
    )
    arrived, _ = read_order(json.loads(json.dumps(order.to_json(PICTURES))))

    assert arrived.output.background == b"a picture"


def test_a_background_s_file_that_is_too_large(tmp_path: Path) -> None:
    paper = tmp_path / "paper.png"
    with paper.open("wb") as stream:
        stream.truncate(9 << 20)
    layers: Any = ({"background": str(paper)}, {}, {})

    with pytest.raises(UsageError, match="at most 8 MB"):
        make_order(("u2netp", HASH), "auto", ReadSettings(), layers, create=True, preview=False)


def layers_of(**typed: object) -> dict[str, Any]:
    return {"layers": {"typed": typed, "environment": {}, "preset": {}}}


@pytest.mark.parametrize(
    "changes",
    [
        {"reply": "bgx"},
        {"reply": None},
        {"hash": "sha256:0"},
        {"model": 5},
        {"create": "yes"},
        {"precision": "fp64"},
        {"read": {"max_size": "800", "max_pixels": 1}},
        {"read": {"max_size": 800}},
        {"read": {"max_size": 1, "max_pixels": 1}},
        {"layers": {}},
        {"pictures": []},
        {"pictures": [[1, "/a", "/b", None]] * 65},
        {"pictures": [["1", "/a", "/b", None]]},
        {"pictures": [[1, "", "/b", None]]},
        {"pictures": [[1, "/a", None, None]]},
        {"pictures": "all"},
        {"command": "rm"},
    ],
)
def test_what_is_no_task_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_order(message(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        layers_of(no_such_option=1),
        layers_of(quality="80"),
        layers_of(quality=500),
        layers_of(crop="yes"),
        layers_of(background=[1, 2, 3]),
        layers_of(background={"base64": "not base64!"}),
        layers_of(background={"path": "/etc/passwd"}),
        layers_of(background=__file__),
        layers_of(mask_only=True, shadow="soft"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    order, _ = read_order(message(**changes))

    with pytest.raises(UsageError):
        _ = order.output


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(field=st.sampled_from(sorted(message())), value=json_values)
def test_any_json_is_a_task_or_refused(field: str, value: object) -> None:
    try:
        order, pictures = read_order(message(**{field: value}))
        for picture in pictures:
            make_job(picture, order, order.output)
    except UsageError:
        pass


@given(value=json_values)
def test_any_json_is_no_answer(value: object) -> None:
    job = Job(open_file("a.jpg"), open_file("a.png"))
    for row in (value, {"done": value}, {"skipped": value}, {"done": {}, "preview": value}):
        with pytest.raises((ValueError, TypeError, KeyError, AttributeError, IndexError)):
            read_outcome(job, row)  # type: ignore[arg-type]


def test_a_target_of_another_kind_is_refused() -> None:
    order, _ = read_order(message())

    with pytest.raises(UsageError, match="is no name of a png file"):
        make_job(Picture(1, "/in/a.jpg", "/home/me/.profile"), order, order.output)


def test_outcomes_arrive_as_they_were_sent() -> None:
    job = Job(open_file("in/a.jpg"), open_file("out/a.png"))
    trust = Trust(0.75, ("left", "bottom"), 0.5, 2, damaged=True)
    measured = Measured(9, 8, 0.25, (1, 2, 3, 4), trust, {"read": 0.5}, ("a note",), (9, 8))
    empty = Measured(9, 8, 0.0, None, Trust(0.0, (), 0.0, 0), {}, (), (9, 8))
    outcomes: list[Outcome] = [
        Done(job, measured, preview=b"jpeg"),
        Done(job, empty),
        Skipped(job, "exists"),
    ]
    for outcome in outcomes:
        assert read_outcome(job, json.loads(json.dumps(write_outcome(outcome)))) == outcome


def test_an_error_speaks_of_the_file_as_it_was_named_here() -> None:
    job = Job(open_file("in/a.jpg"), open_file("out/a.png"))
    far = Failed(job, UnreadableError(f"{Path('in/a.jpg').absolute().as_posix()}: is no picture"))

    outcome = read_outcome(job, json.loads(json.dumps(write_outcome(far))))

    assert isinstance(outcome, Failed)
    assert type(outcome.error) is UnreadableError
    assert str(outcome.error) == f"{Path('in/a.jpg')}: is no picture"


def test_a_refusal_has_its_kind() -> None:
    assert type(make_refusal({"code": "bad-model", "message": "other"})) is BadModelError


@pytest.mark.parametrize(
    ("source", "target", "review", "fits"),
    [
        ("shop/in/a.jpg", "shop/out/a.png", None, True),
        ("shop/in/a.jpg", "shop/out/new/a.png", "shop/look/a.png", True),
        ("other/a.jpg", "shop/out/a.png", None, False),
        ("shop/in/a.jpg", "other/a.png", None, False),
        ("shop/in/a.jpg", "shop/out/a.png", "other/a.png", False),
        ("shop/../other/a.jpg", "shop/out/a.png", None, False),
        ("shop/link.jpg", "shop/out/a.png", None, False),
        ("shop/in/a.jpg", "shop/linked/a.png", None, False),
        ("shopping/a.jpg", "shop/out/a.png", None, False),
        ("s3://shop/a.jpg", "shop/out/a.png", None, False),
    ],
)
def test_a_worker_s_places(
    tmp_path: Path, source: str, target: str, review: str | None, *, fits: bool
) -> None:
    for name in ("shop/in", "other", "shopping"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other" / "a.jpg").write_bytes(b"secret")
    (tmp_path / "shop" / "link.jpg").symlink_to(tmp_path / "other" / "a.jpg")
    (tmp_path / "shop" / "linked").symlink_to(tmp_path / "other", target_is_directory=True)

    def place(name: str) -> Any:
        return open_file(name if "://" in name else tmp_path / name)

    job = Job(place(source), place(target), place(review) if review else None)
    if fits:
        check_allowed(job, (str(tmp_path / "shop"),))
    else:
        with pytest.raises(UsageError, match="the worker may not go there"):
            check_allowed(job, (str(tmp_path / "shop"),))


def test_a_worker_without_places_goes_to_buckets_alone(tmp_path: Path) -> None:
    bucket = Job(open_file("s3://shop/a.jpg"), open_file("s3://shop/a.png"))
    check_allowed(bucket, ())
    check_allowed(bucket, ("s3://shop",))

    for job, allow in (
        (bucket, ("s3://other",)),
        (bucket, ("s3://sho",)),
        (Job(open_file(tmp_path / "a.jpg"), open_file("s3://shop/a.png")), ()),
    ):
        with pytest.raises(UsageError, match="the worker may not go there"):
            check_allowed(job, allow)

"""`bgx bench`: what it tries, and that what it prints can be used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bgx.cli.main import run
from bgx.errors import ExitCode, UnreadableError
from bgx.image.read import read_photo
from bgx.options import OutputSettings
from bgx.run.bench import draw_photos, make_policies, measure
from bgx.settings import DeviceSettings, ReadSettings
from bgx.storage import open_file
from support.fakes import ConstantNetwork, cpu_plan, gpu_plan
from support.networks import tiny_network

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 16, 96])
def test_policies_never_ask_for_more_than_the_cores(cores: int) -> None:
    policies = make_policies(DeviceSettings(), cores, gpu=False)
    shares = [(policy.workers or 0, policy.threads or 0) for policy in policies]
    assert (cores, 1) in shares
    assert (1, cores) in shares
    assert len(set(shares)) == len(shares)
    assert all(1 <= workers * threads <= cores for workers, threads in shares)


def test_policies_of_a_gpu_are_batch_sizes() -> None:
    sizes = [policy.batch_size for policy in make_policies(DeviceSettings("cuda:1"), 4, gpu=True)]
    assert sizes[0] == 1
    assert sizes == sorted(set(sizes), key=lambda size: size or 0)


def test_measures_every_step(tmp_path: Path) -> None:
    photos = [open_file(path) for path in draw_photos(tmp_path, 6, (64, 48))]
    policies = [DeviceSettings(workers=2, threads=1), DeviceSettings(batch_size=4)]
    networks = [ConstantNetwork(cpu_plan(2)), ConstantNetwork(gpu_plan(4))]
    waiting = iter(networks)
    results = measure(
        photos,
        policies,
        lambda _: next(waiting),  # type: ignore[arg-type, return-value]
        ReadSettings(),
        OutputSettings(),
    )
    assert [result.flags for result in results] == ["--workers 2 --threads 1", "--batch-size 4"]
    for result in results:
        assert set(result.milliseconds) == {"read", "infer", "compose", "write"}
        assert all(milliseconds >= 0 for milliseconds in result.milliseconds.values())
        assert result.pictures_per_second > 0


def test_a_broken_photo_ends_it_with_its_error(tmp_path: Path) -> None:
    photos = draw_photos(tmp_path, 2, (64, 48))
    photos[1].write_bytes(b"no photo")
    with pytest.raises(UnreadableError, match=photos[1].name):
        measure(
            [open_file(path) for path in photos],
            [DeviceSettings(workers=1)],
            lambda _: ConstantNetwork(cpu_plan(1)),  # type: ignore[arg-type, return-value]
            ReadSettings(),
            OutputSettings(),
        )


def test_drawn_photos_are_photos_of_the_size(tmp_path: Path) -> None:
    for path in draw_photos(tmp_path, 2, (320, 240)):
        photo = read_photo(path, ReadSettings(), name=path.name)
        assert photo.image.size == (320, 240)


def test_prints_flags_that_bgx_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = str(tiny_network(tmp_path / "tiny.onnx"))
    photos = tmp_path / "photos"
    photos.mkdir()
    draw_photos(photos, 2, (64, 48))
    assert run(["bench", str(photos), "-n", "2", "--model", network]) == ExitCode.OK
    best = capsys.readouterr().out.splitlines()[-1].removeprefix("best here: ").split()
    assert run(["batch", str(photos), "-o", str(tmp_path / "cut"), "-m", network, *best]) == 0

    assert run(["bench", str(photos), "-n", "2", "-m", network, "--workers", "1", "--json"]) == 0
    [result] = json.loads(capsys.readouterr().out)
    assert result["flags"] == "--workers 1"

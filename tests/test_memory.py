"""Memory is bounded by what is in work, not by how many pictures there are."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from support.containers import container, run_in
from support.fakes import save_photo
from support.shell import PATIENCE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's peak of memory")

# Not ru_maxrss: that begins with what the process had that started this one.
MEASURED = (
    "import sys; from pathlib import Path; from bgx.cli.main import run;"
    "assert run(sys.argv[1:]) == 0;"
    "[line] = [l for l in Path('/proc/self/status').read_text().splitlines() if 'VmHWM' in l];"
    "print(line.split()[1])"
)


def peak(photos: int) -> int:
    """Peak memory of a batch of so many photos, KiB."""
    folder = Path(f"in-{photos}")
    folder.mkdir()
    for number in range(photos):
        os.link("photo.png", folder / f"{number:03}.png")
    arguments = ["batch", str(folder), "-o", f"out-{photos}", "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    return int(done.stdout)


def test_ten_times_the_photos_need_no_more_memory(
    stocked_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All cut-outs of the larger batch together would be 200 MB."""
    monkeypatch.chdir(tmp_path)
    save_photo(Path("photo.png"), size=(600, 450))

    few, many = peak(20), peak(200)

    assert many <= 1.15 * few


def count_in(program: str, *words: str) -> int:
    """What a program prints, which has to do with the allocator of glibc."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("glibc alone can be told")
    return int(subprocess.run([sys.executable, "-c", program, *words], capture_output=True).stdout)


def test_the_memory_of_one_picture_serves_the_next() -> None:
    """Pages that the system had to give for the blocks of ten large photos, one by one."""
    program = (
        "import resource, sys; from bgx.allocator import keep_memory;"
        "sys.argv[1:] and keep_memory();"
        "faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt;"
        "before = faults(); [len([b'1' * (16 << 20) for _ in range(4)]) for _ in range(10)];"
        "print(faults() - before)"
    )
    given, kept = count_in(program), count_in(program, "keep")
    assert kept < given / 5


def test_what_loading_a_network_needed_is_returned() -> None:
    """Memory after small blocks of 200 MB are freed below one that is still in use, MiB."""
    program = (
        "from bgx.allocator import keep_memory, release_memory; from pathlib import Path;"
        "now = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4 // 1024;"
        "keep_memory(); blocks = [b'1' * (1 << 20) for _ in range(200)]; del blocks[:-1];"
        "before = now(); release_memory(); print(before - now())"
    )
    assert count_in(program) > 150


@pytest.mark.parametrize(
    ("size", "options"),
    [((6000, 4000), []), ((320, 240), ["--canvas", "7000x5000", "--upscale"])],
    ids=["large photos", "large canvases"],
)
def test_a_small_container_holds_many_workers(
    tmp_path: Path, size: tuple[int, int], options: list[str]
) -> None:
    """Eight pictures of 24 megapixels and more at once would take three times the limit."""
    photo = save_photo(tmp_path / "photo.png", size=size)
    (tmp_path / "in").mkdir()
    for number in range(8):
        os.link(photo, tmp_path / f"in/{number}.png")
    words = ["batch", "in", "-o", "out", "--model", "lite", "--workers", "8", *options]
    limit = str(1 << 30)
    with container("memory", {"memory.limit_in_bytes": limit, "memory.max": limit}) as group:
        done = run_in(
            group, sys.executable, "-c", MEASURED, *words, cwd=tmp_path, timeout=5 * PATIENCE
        )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1 << 20  # KiB
    assert len(list((tmp_path / "out").iterdir())) == 8

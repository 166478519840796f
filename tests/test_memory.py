"""Memory is bounded by what is in work, not by how many pictures there are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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

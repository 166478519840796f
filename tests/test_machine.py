"""Cores and memory: what control groups allow, and what the machine has."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bgx.machine import count_cores, memory_limit, memory_used

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def write_cgroups(folder: Path, lines: str, files: dict[str, str]) -> dict[str, Path]:
    """A list of cgroups with these lines, and a mount with these files: for count_cores, ..."""
    own = folder / "cgroup"
    own.write_text(lines, encoding="utf-8")
    for name, content in files.items():
        path = folder / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return {"cgroup": own, "mount": folder / "mount"}


@pytest.fixture
def many_cores(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    return 16


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("", {}, 16),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "300000 100000"}, 2),
        ("0::/host/path\n", {"cpu.max": "500000 100000"}, 5),
        ("0::/\n", {"cpu.max": "not a number"}, 16),
        ("0::/\n", {"cpu.max": "100000 0"}, 16),
        ("0::/\n", {"cpu.max": "9900000 100000"}, 16),
        (
            "3:cpu,cpuacct:/docker/1\n1:memory:/docker/1\n",
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "3:cpu,cpuacct:/docker/1\n",
            {"cpu/docker/1/cpu.cfs_quota_us": "-1", "cpu/docker/1/cpu.cfs_period_us": "100000"},
            16,
        ),
        ("garbage\n\n:::\n", {}, 16),
    ],
)
def test_cores_are_the_smaller_of_affinity_and_quota(
    many_cores: int, tmp_path: Path, lines: str, files: dict[str, str], cores: int
) -> None:
    assert count_cores(**write_cgroups(tmp_path, lines, files)) == cores
    assert cores <= many_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux has affinity")
def test_a_process_bound_to_one_core_counts_one() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from bgx.machine import count_cores; print(count_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_without_affinity_and_cgroups_the_machines_cores_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert count_cores(cgroup=tmp_path / "none") == 7


@pytest.mark.parametrize(
    ("lines", "files", "limit"),
    [
        ("0::/\n", {"memory.max": "104857600\n"}, 100 * MIB),
        ("0::/\n", {"memory.max": "max\n", "memory.high": "52428800\n"}, 50 * MIB),
        ("0::/\n", {"memory.max": "104857600", "memory.high": "52428800"}, 50 * MIB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "104857600"}, 100 * MIB),
        ("0::/a/b\n", {"a/b/memory.max": "52428800", "a/memory.max": "104857600"}, 50 * MIB),
        ("0::/host/path\n", {"memory.max": "104857600"}, 100 * MIB),
        (
            "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/\n",
            {"memory/memory.limit_in_bytes": "104857600\n"},
            100 * MIB,
        ),
        (
            "4:memory:/docker/1\n",
            {
                "memory/memory.limit_in_bytes": "9223372036854771712\n",
                "memory/docker/memory.limit_in_bytes": "104857600\n",
                "memory/docker/1/memory.limit_in_bytes": "209715200\n",
            },
            100 * MIB,
        ),
    ],
)
def test_memory_is_the_least_that_any_cgroup_allows(
    tmp_path: Path, lines: str, files: dict[str, str], limit: int
) -> None:
    assert memory_limit(**write_cgroups(tmp_path, lines, files)) == limit


@pytest.mark.parametrize(
    ("lines", "files"),
    [
        ("", {}),
        ("0::/\n", {"memory.max": "max\n"}),
        ("0::/\n", {"memory.max": "not a number"}),
        ("0::/\n", {"memory.max": "-1"}),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}),
        ("3:cpu:/\n", {"memory/memory.limit_in_bytes": "104857600\n"}),
        ("garbage\n\n:::\n", {}),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="the expected value is read by sysconf")
def test_without_a_limit_memory_is_the_machines(
    tmp_path: Path, lines: str, files: dict[str, str]
) -> None:
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

    assert memory_limit(**write_cgroups(tmp_path, lines, files)) == machine


def test_a_list_of_cgroups_that_is_no_text_sets_no_limit(tmp_path: Path) -> None:
    where = write_cgroups(tmp_path, "0::/\n", {"memory.max": "104857600"})
    where["cgroup"].write_bytes(b"0::/\xff\xfe\n")

    assert memory_limit(**where) > 100 * MIB
    assert count_cores(**where) >= 1


def test_memory_in_use_grows_with_what_is_allocated() -> None:
    before = memory_used()
    # Not a bytearray, which may get memory that malloc kept.
    with mmap.mmap(-1, 64 * MIB) as held:
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        after = memory_used()

    assert before > 0
    assert after - before > 48 * MIB
    assert after < memory_limit()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such file")
def test_where_the_system_tells_the_highest_use_alone_that_counts(tmp_path: Path) -> None:
    now = memory_used()
    (tmp_path / "statm").write_text("odd", encoding="ascii")

    assert now // 2 < memory_used(statm=tmp_path / "none") < memory_limit()
    assert now // 2 < memory_used(statm=tmp_path / "statm") < memory_limit()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit address space")
def test_the_limit_of_address_space() -> None:
    code = """
import resource
from bgx.machine import address_limit
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (1 << 36, hard))
print(address_limit())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == 1 << 36

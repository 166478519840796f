"""How many cores and how much memory this process may use.

On Linux, control groups (cgroups, versions 1 and 2) may allow less than the machine has:
containers, systemd and batch systems set their limits with them. Limits of parent groups count too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_CGROUP = Path("/proc/self/cgroup")
"""The cgroups of this process. It and the next two exist on Linux only."""

_MOUNT = Path("/sys/fs/cgroup")
"""Where the cgroup file systems are mounted."""

_STATM = Path("/proc/self/statm")
"""Sizes of this process's memory in pages; the second is its resident set."""


def count_cores(*, cgroup: Path = _CGROUP, mount: Path = _MOUNT) -> int:
    """Cores this process may use, at least 1: the smaller of its affinity and its cgroup quota.

    cgroup: lists the cgroups of the process. mount: where the cgroup file systems are mounted.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [_read_quota(folder) for folder in _cgroup_folders("cpu", cgroup, mount)]
    return max(1, int(min([cores, *(quota for quota in quotas if quota)])))


def memory_limit(*, cgroup: Path = _CGROUP, mount: Path = _MOUNT) -> int:
    """Bytes of memory this process may use: the least of its cgroup limits and the machine's.

    Other processes may use part of it. ``sys.maxsize`` if neither is known; raises nothing. cgroup,
    mount: see :func:`count_cores`.
    """
    names = ("memory.max", "memory.high", "memory.limit_in_bytes")
    folders = _cgroup_folders("memory", cgroup, mount)
    limits = [_read_number(folder / name) for folder in folders for name in names]
    # Version 1 writes "no limit" as a number larger than any machine's memory.
    return min([_machine_memory() or sys.maxsize, *(limit for limit in limits if limit)])


def address_limit() -> int | None:
    """Bytes of address space this process may use; None if it is not limited."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def memory_used(*, statm: Path = _STATM) -> int:
    """Resident memory of this process, bytes; 0 where the system does not report it.

    On systems other than Linux and Windows it is the peak so far. statm: the file Linux reports it
    in.
    """
    return _resident_bytes(statm)


def _cgroup_folders(controller: str, cgroup: Path, mount: Path) -> list[Path]:
    """Folders of the process's cgroups and all their parents that may limit `controller`."""
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    folders = []
    for line in lines:  # ID:CONTROLLERS:PATH, without controllers in version 2
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = mount / controller if controllers else mount
        # In a container the path may be the one on the host: then only the root exists here.
        parts = Path(path.lstrip("/")).parts
        folders += [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return folders


def _read_quota(folder: Path) -> float | None:
    """Cores that the cgroup of this folder may use; None if it sets no limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        # No such file, or "max": no limit here.
        return None


def _read_number(file: Path) -> int | None:
    """The positive number in this file; None if there is none ("max" stands for no limit)."""
    try:
        return max(0, int(file.read_text(encoding="utf-8"))) or None
    except (OSError, ValueError):
        return None


if sys.platform == "win32":

    def _machine_memory() -> int | None:
        """Bytes of memory the machine has, by GlobalMemoryStatusEx; None where it fails."""
        import ctypes

        class MemoryStatus(ctypes.Structure):
            _fields_ = [
                ("length", ctypes.c_ulong),
                ("load", ctypes.c_ulong),
                ("total", ctypes.c_ulonglong),
                ("rest", ctypes.c_ulonglong * 6),
            ]

        status = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
        done = ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status.total) if done else None

    def _resident_bytes(statm: Path) -> int:
        """Resident bytes of this process, by GetProcessMemoryInfo; 0 where it fails."""
        import ctypes

        class MemoryCounters(ctypes.Structure):
            _fields_ = [
                ("length", ctypes.c_ulong),
                ("faults", ctypes.c_ulong),
                ("peak", ctypes.c_size_t),
                ("resident", ctypes.c_size_t),
                ("rest", ctypes.c_size_t * 6),
            ]

        counters = MemoryCounters(length=ctypes.sizeof(MemoryCounters))
        this_process = ctypes.c_void_p(-1)
        done = ctypes.windll.kernel32.K32GetProcessMemoryInfo(
            this_process, ctypes.byref(counters), counters.length
        )
        return int(counters.resident) if done else 0

else:

    def _machine_memory() -> int | None:
        """Bytes of memory the machine has; None where the system does not report it."""
        try:
            return max(0, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) or None
        except (OSError, ValueError):
            return None

    def _resident_bytes(statm: Path) -> int:
        """Resident bytes of this process; the peak so far where the system reports only that."""
        try:
            return int(statm.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            import resource

            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024

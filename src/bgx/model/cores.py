"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def count_cores(
    *,
    cgroup: Path = Path("/proc/self/cgroup"),
    mount: Path = Path("/sys/fs/cgroup"),
) -> int:
    """Cores this process may use: the smaller of its affinity and its cgroup quota, at least 1.

    cgroup: the process's cgroups. mount: where cgroup file systems hang. Both exist on Linux alone.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        lines = cgroup.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    quotas = [quota for line in lines for quota in _quotas(line, mount)]
    return max(1, int(min([cores, *quotas])))


def _quotas(line: str, mount: Path) -> list[float]:
    """Quotas in cores of one line ``ID:CONTROLLERS:PATH`` and of all cgroups above it."""
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if not controllers:
        root = mount
    elif "cpu" in controllers.split(","):
        root = mount / "cpu"
    else:
        return []
    # In a container the path is that of the host and its parents may be all there is.
    parts = Path(path.lstrip("/")).parts
    folders = [root.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
    return [quota for folder in folders if (quota := _quota(folder)) is not None]


def _quota(folder: Path) -> float | None:
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

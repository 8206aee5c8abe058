"""Nothing goes in; what this computer, this process and their limits have of memory comes out, in bytes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

_NO_LIMIT = 1 << 60
"""Version 1 of control groups says "no limit" with a number near 2^63."""


@dataclass(frozen=True)
class Machine:
    """Memory for one process.

    Attributes:
        total: Of the computer; None where the system does not say.
        available: What this process can have in all, with what it holds already: free memory, and room in its control
            group; None where the system does not say.
        limit: The smallest limit of the process's control groups; None without one.
        gpu_total: Of the GPU; None without one.
        gpu_free: Of that free, with what this process holds already.
    """

    total: int | None
    available: int | None
    limit: int | None
    gpu_total: int | None = None
    gpu_free: int | None = None


def read_machine(gpu: bool) -> Machine:
    """The memory there is now.

    Args:
        gpu: Whether to ask the GPU too.
    """
    told, own = _fields(Path("/proc/meminfo")), process_memory()[0]
    group = cgroup_memory(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    total = told.get("MemTotal") or _physical_memory()
    rooms = [told["MemAvailable"] + own] if "MemAvailable" in told else []
    if group is not None:
        rooms.append(max(group[0] - group[1], 0) + own)
    limit = None if group is None or (total is not None and group[0] >= total) else group[0]
    gpu_total, gpu_free = _gpu_memory() if gpu else (None, None)
    return Machine(total, min(rooms, default=None), limit, gpu_total, gpu_free)


def process_memory() -> tuple[int, int]:
    """What this process has in memory, and the most it had, file pages and libraries included; 0 where unknown."""
    status = _fields(Path("/proc/self/status"))
    if "VmRSS" in status:
        return status["VmRSS"], status.get("VmHWM", status["VmRSS"])
    if sys.platform == "win32":
        return 0, 0
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = most if sys.platform == "darwin" else most * 1024
    return most, most


def forget_peak() -> bool:
    """Starts "the most it had" of `process_memory` anew; False where the system does not offer that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def cgroup_memory(membership: Path, root: Path) -> tuple[int, int] | None:
    """Limit and use of the control group that leaves a process least room; None without a limit.

    Args:
        membership: `/proc/self/cgroup`.
        root: Where control groups are mounted.
    """
    if not membership.is_file():
        return None
    found = []
    for line in membership.read_text(errors="replace").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found += _limits(root, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            found += _limits(root / "memory", path, *names)
    return min(found, key=lambda pair: pair[0] - pair[1], default=None)


def _limits(root: Path, path: str, limit: str, used: str, reclaimable: str) -> list[tuple[int, int]]:
    """Limit and use of a group and of all above it; pages of files that nobody looks at do not count as used."""
    found = []
    folder = root / path.strip("/")
    for group in [folder, *folder.parents]:
        if not group.is_relative_to(root):
            break
        most, now = _number(group / limit), _number(group / used)
        if most is not None and most < _NO_LIMIT and now is not None:
            cached = _words(group / "memory.stat").get(reclaimable, 0)
            found.append((most, max(now - cached, 0)))
    return found


def _number(file: Path) -> int | None:
    """The number in a file; None if there is none, as in `max`."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _words(file: Path) -> dict[str, int]:
    """Lines of a name and a number."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _fields(file: Path) -> dict[str, int]:
    """Lines such as `VmRSS:  1024 kB`, in bytes."""
    if not file.is_file():
        return {}
    fields = {}
    for line in file.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        if len(words) == 2 and words[1] == "kB":
            fields[name] = int(words[0]) * 1024
    return fields


def _physical_memory() -> int | None:
    names = getattr(os, "sysconf_names", {})
    if "SC_PHYS_PAGES" not in names or "SC_PAGE_SIZE" not in names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _gpu_memory() -> tuple[int, int]:
    import torch

    free, total = torch.cuda.mem_get_info()
    return total, free + torch.cuda.memory_reserved()

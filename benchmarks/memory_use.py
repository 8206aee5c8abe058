"""What this process takes, in 1e6 bytes. The standard library alone, so that looking costs a process nothing."""

from __future__ import annotations

import platform
from pathlib import Path

STATUS = Path("/proc/self/status")


def status_mb(field: str) -> float:
    """A figure of `/proc/self/status`, which Linux has."""
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise RuntimeError(f"{STATUS} has no {field}: this benchmark needs Linux.")


def peak_mb() -> float:
    """The most this process ever had resident."""
    if STATUS.exists():
        return status_mb("VmHWM")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if platform.system() == "Darwin" else peak * 1024 / 1e6

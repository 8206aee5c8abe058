"""Limits of control groups, and the process's own memory."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from featherfit.planning.machine import cgroup_memory, forget_peak, process_memory, read_machine

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_the_tightest_group_counts(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("0::/outer/inner\n")
    root = tmp_path / "sys"
    write(root, memory__current=900)
    write(root / "outer", memory__max=1000, memory__current=700, memory__stat="anon 500\ninactive_file 150")
    write(root / "outer" / "inner", memory__max="max", memory__current=500)
    assert cgroup_memory(membership, root) == (1000, 550)
    write(root / "outer" / "inner", memory__max=600, memory__current=500)
    assert cgroup_memory(membership, root) == (600, 500)


def test_the_first_version_of_groups(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/a\n4:memory:/a\n")
    names = {"memory__limit_in_bytes": 800, "memory__usage_in_bytes": 300, "memory__stat": "total_inactive_file 100"}
    write(tmp_path / "memory" / "a", **names)
    write(tmp_path / "memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=5)
    assert cgroup_memory(membership, tmp_path) == (800, 200)


def test_no_group_no_limit(tmp_path):
    assert cgroup_memory(tmp_path / "none", tmp_path) is None
    (tmp_path / "cgroup").write_text("0::/\n")
    assert cgroup_memory(tmp_path / "cgroup", tmp_path) is None


@linux_only
def test_memory_of_the_process():
    before, _ = process_memory()
    block = mmap.mmap(-1, 40_000_000)  # not by malloc, which may keep it
    for _ in range(40):
        block.write(bytes(1_000_000))  # piece by piece: malloc may keep what is written from, too
    after, peak = process_memory()
    assert 38e6 < after - before < 48e6
    assert peak >= after
    block.close()
    if forget_peak():
        assert process_memory()[1] < peak - 30e6


@linux_only
def test_the_machine_has_room_for_this_process():
    machine = read_machine(gpu=False)
    assert process_memory()[0] < machine.available <= machine.total
    assert machine.gpu_total is None

"""The cache folder: where it is, and that files and folders appear in it whole or not at all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from featherfit.checkpoints.cache import build_folder, cache_dir, write_file


def test_cache_dir_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FEATHERFIT_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("FEATHERFIT_HOME")
    assert cache_dir() == tmp_path / "xdg" / "featherfit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == Path.home() / ".cache" / "featherfit"


def test_a_file_is_replaced_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_file(path, "old")
    write_file(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("done")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_folder(tmp_path / "target", build)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_built_again(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        raise AssertionError("built again")

    (tmp_path / "target").mkdir()
    assert build_folder(tmp_path / "target", build) == tmp_path / "target"


def test_two_builds_at_once_both_end_with_one_whole_folder(tmp_path: Path) -> None:
    both_inside = threading.Barrier(2, timeout=10)
    target = tmp_path / "target"

    def build_as(who: str) -> Path:
        def build(folder: Path) -> None:
            (folder / "first").write_text(who)
            both_inside.wait()
            assert not target.exists() or (target / "second").is_file()  # never seen half-filled
            (folder / "second").write_text(who)

        return build_folder(target, build)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(build_as, ("one", "two"))) == [target, target]
    assert list(tmp_path.iterdir()) == [target]
    assert (target / "first").read_text() == (target / "second").read_text()

"""Files appear whole or not at all, on disks that are full too."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from featherfit import storage
from featherfit.errors import ArtifactError, StorageError
from featherfit.storage import expanded, replaced, storing, write_json_whole, write_tensors_whole


def refuse(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> None:
    """Makes a call of `os` fail as the system would."""

    def refused(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(storage.os, name, refused)


class TestReplaced:
    def test_takes_the_place(self, tmp_path):
        file = tmp_path / "a.json"
        for value in (1, 2):
            write_json_whole(file, {"value": value})
            assert json.loads(file.read_text()) == {"value": value}
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_what_was_there_stays_if_the_system_refuses(self, tmp_path, monkeypatch, call):
        file = tmp_path / "a.json"
        write_json_whole(file, 1)
        refuse(monkeypatch, call, errno.ENOSPC)
        with pytest.raises(OSError) as caught:
            write_json_whole(file, 2)
        assert caught.value.errno == errno.ENOSPC and json.loads(file.read_text()) == 1
        assert [path.name for path in tmp_path.iterdir()] == ["a.json"]

    def test_nothing_is_there_before_the_end(self, tmp_path):
        with pytest.raises(KeyError), replaced(tmp_path / "a") as part:
            part.write_text("half")
            raise KeyError
        assert list(tmp_path.iterdir()) == []

    def test_it_is_on_the_disk_before_it_takes_the_place(self, tmp_path, monkeypatch):
        calls: list[str] = []
        sync, replace = os.fsync, os.replace
        monkeypatch.setattr(storage.os, "fsync", lambda descriptor: calls.append("fsync") or sync(descriptor))
        monkeypatch.setattr(storage.os, "replace", lambda *paths: calls.append("replace") or replace(*paths))
        write_json_whole(tmp_path / "a", 1)
        assert calls == ["fsync", "replace", "fsync"]  # the second one is of the folder

    def test_a_number_that_json_lacks_is_refused(self, tmp_path):
        with pytest.raises(ValueError):
            write_json_whole(tmp_path / "a", float("nan"))
        assert list(tmp_path.iterdir()) == []


def test_tensors(tmp_path):
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.tensor(3, dtype=torch.uint8)}
    write_tensors_whole(tmp_path / "t", tensors)
    read = load_file(tmp_path / "t")
    assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_tensors_may_be_read_by_whoever_may_read_other_files(tmp_path):
    write_json_whole(tmp_path / "a", 1)
    write_tensors_whole(tmp_path / "t", {"a": torch.zeros(1)})
    assert (tmp_path / "t").stat().st_mode == (tmp_path / "a").stat().st_mode


class TestStoring:
    @pytest.mark.parametrize(
        ("code", "said"),
        [
            (errno.ENOSPC, "No space left on device. Make room on that disk."),
            (errno.EROFS, "Read-only file system. Choose a folder that can be written to."),
            (errno.EACCES, "Permission denied. Choose a folder that can be written to."),
            (errno.ENOENT, "No such file or directory. The folder was removed meanwhile."),
            (errno.EIO, "Input/output error."),
        ],
    )
    def test_says_what_and_where_and_what_to_do(self, code, said):
        with pytest.raises(StorageError) as caught, storing("The state of step 3", Path("/there")):
            raise OSError(code, os.strerror(code))
        assert str(caught.value) == f"The state of step 3 cannot be written to /there: {said}"

    def test_other_errors_pass(self):
        for error in (KeyError("a"), ArtifactError("b"), StorageError("c")):
            with pytest.raises(type(error)) as caught, storing("It", Path("/there")):
                raise error
            assert caught.value is error

    def test_a_disk_that_is_really_full(self):
        """Plain files and safetensors alike; the latter's library has an exception of its own."""
        full = Path("/dev/full")
        if not full.is_char_device():
            pytest.skip("this system has no /dev/full")
        with pytest.raises(StorageError, match="No space left on device"), storing("It", full):
            full.write_text("x")

    def test_a_folder_that_is_gone(self, tmp_path):
        with pytest.raises(StorageError, match="The folder was removed meanwhile"), storing("It", tmp_path):
            write_tensors_whole(tmp_path / "gone" / "t", {"a": torch.zeros(1)})


def test_a_limit_on_the_size_of_files(tmp_path):
    """The system itself refuses, in the middle of writing safetensors."""
    resource = pytest.importorskip("resource")
    file = tmp_path / "t"
    write_tensors_whole(file, {"a": torch.zeros(4)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match="File too large.*ulimit -f"), storing("It", file):
            write_tensors_whole(file, {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(load_file(file)["a"]) == 4 and [path.name for path in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize(
    ("given", "found"), [("~", "/home/me"), ("~/a", "/home/me/a"), ("~no one/a", "~no one/a"), ("a~", "a~")]
)
def test_home_folders(given, found, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(expanded(given)) == str(expanded(Path(given))) == found

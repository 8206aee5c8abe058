"""Who may work where, what is left behind, and what is said about it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from featherfit.artifact import workspace
from featherfit.artifact.workspace import at_work, is_vacant, output_path, read_record
from featherfit.errors import ArtifactError, ConfigError, Interrupted, PathExistsError, StorageError, TrainingError


def a_state(work: workspace.Workspace, step: int = 7) -> None:
    (work.folder / f"state-{step:06d}.json").write_text("{}")


def interrupted(path: Path, record: dict[str, Any] | None = None) -> dict[str, Any]:
    """Leaves a fit behind that has a state; gives its record."""
    with pytest.raises(KeyboardInterrupt), at_work(path, None, clean=True) as work:
        work.note(record or {"a": 1})
        a_state(work)
        raise KeyboardInterrupt
    return read_record(path)


class TestWhatIsLeft:
    def test_nothing_of_a_fit_that_ends_well(self, tmp_path):
        with at_work(tmp_path / "new" / "a", None, clean=True) as work:
            work.note({})
            a_state(work)
            (work.path / "config.json").write_text("{}")
        assert [file.name for file in (tmp_path / "new" / "a").iterdir()] == ["config.json"]

    def test_all_if_it_is_wanted(self, tmp_path):
        with at_work(tmp_path / "a", None, clean=False) as work:
            work.note({})
        assert (tmp_path / "a" / "training" / "fit.json").is_file()

    @pytest.mark.parametrize("there", [True, False])
    def test_of_a_fit_that_fails_the_users_own_empty_folder(self, tmp_path, there):
        path = tmp_path / "a"
        if there:
            path.mkdir()
        with pytest.raises(KeyError), at_work(path, None, clean=True) as work:
            work.note({})
            raise KeyError
        assert path.is_dir() == there and is_vacant(path)

    def test_of_one_that_fails_after_a_state_all_that_it_goes_on_from(self, tmp_path):
        record = interrupted(tmp_path / "a")
        assert record["a"] == 1 and record["process"][1] == os.getpid()
        assert sorted(file.name for file in (tmp_path / "a" / "training").iterdir()) == [
            "fit.json",
            "lock",
            "state-000007.json",
        ]

    def test_of_one_that_goes_on_in_vain_everything(self, tmp_path):
        record = interrupted(tmp_path / "a")
        (tmp_path / "a" / "training" / "state-000007.json").unlink()
        with pytest.raises(ConfigError), at_work(tmp_path / "a", record, clean=True):
            raise ConfigError("another table")
        assert read_record(tmp_path / "a") == record

    def test_of_one_that_ran_out_of_time_its_state(self, tmp_path):
        with at_work(tmp_path / "a", None, clean=True) as work:
            a_state(work)
            work.keeps = True
        assert (tmp_path / "a" / "training" / "state-000007.json").is_file()

    def test_a_failure_is_raised_when_all_is_written(self, tmp_path):
        failure, order = TrainingError("no number", diverged=True), []
        with pytest.raises(TrainingError) as caught, at_work(tmp_path / "a", None, clean=True) as work:
            work.undo = lambda: order.append("undone")
            a_state(work)
            work.failure = failure
            (work.path / "config.json").write_text("{}")
            order.append("written")
        assert caught.value is failure and order == ["written", "undone"]
        assert [file.name for file in (tmp_path / "a").iterdir()] == ["config.json"]

    def test_an_interruption_says_how_to_go_on(self, tmp_path):
        path = tmp_path / "a"
        with pytest.raises(Interrupted) as stopped, at_work(path, None, clean=True) as work:
            a_state(work, 12)
            raise Interrupted("Interrupted after step 12 of 20.", 15)
        assert stopped.value.exit_code == 143
        assert str(stopped.value) == (
            f"Interrupted after step 12 of 20. The state of step 12 is kept: MultiModalPredictor.load({str(path)!r}, "
            f"resume=True).fit(data), or featherfit fit ... --path {path} --resume goes on."
        )

    def test_before_any_state_it_says_nothing_of_one(self, tmp_path):
        with pytest.raises(Interrupted, match=r"^Interrupted\.$"), at_work(tmp_path / "a", None, clean=True):
            raise Interrupted("Interrupted.")
        assert not (tmp_path / "a").exists()


def hold(path: Path, said: Any, until: Any) -> None:
    with at_work(path, None, clean=True) as work:
        work.note({})
        said.set()
        until.wait(30)


class TestTwoAtOnce:
    def test_the_second_is_refused_and_told_who_is_there(self, tmp_path):
        context = multiprocessing.get_context("spawn")
        said, until, path = context.Event(), context.Event(), tmp_path / "a"
        process = context.Process(target=hold, args=(path, said, until))
        process.start()
        try:
            assert said.wait(60)
            told = rf"path {path} is in use: process {process.pid} on .* fits there\. Wait for it to end, or choose"
            for record in (None, {"a": 1}):
                with pytest.raises(PathExistsError, match=told), at_work(path, record, clean=True):
                    raise AssertionError("both are at work")
            assert (path / "training" / "fit.json").is_file()  # the loser has left all alone
        finally:
            until.set()
            process.join()
        assert process.exitcode == 0 and not path.exists()

    def test_a_process_that_died_holds_nothing(self, tmp_path):
        context = multiprocessing.get_context("spawn")
        said, until, path = context.Event(), context.Event(), tmp_path / "a"
        process = context.Process(target=hold, args=(path, said, until))
        process.start()
        assert said.wait(60)
        process.kill()
        process.join()
        with at_work(path, read_record(path), clean=True) as work:
            assert work.record["process"][1] == process.pid

    def test_in_one_process(self, tmp_path):
        with at_work(tmp_path / "a", None, clean=True):
            with pytest.raises(PathExistsError, match="another process fits there"):
                with at_work(tmp_path / "a", None, clean=True):
                    raise AssertionError("both are at work")

    def test_one_that_came_and_went_meanwhile(self, tmp_path):
        """Between the look at the path and the lock."""
        path = tmp_path / "a"
        assert output_path(None, path) == path
        interrupted(path)
        with pytest.raises(PathExistsError, match="Another process has just used"), at_work(path, None, clean=True):
            raise AssertionError
        assert read_record(path)["a"] == 1


class TestPaths:
    def test_a_missing_parent_is_made(self, tmp_path):
        with at_work(tmp_path / "no" / "such" / "a", None, clean=True) as work:
            assert work.folder.is_dir()

    def test_a_parent_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match=r"Not a directory\. A part of that path is a file\."):
            with at_work(tmp_path / "file" / "a", None, clean=True):
                raise AssertionError
        assert [file.name for file in tmp_path.iterdir()] == ["file"]

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
    def test_a_folder_that_cannot_be_made(self, tmp_path, monkeypatch, code):
        def refused(self: Path, *arguments: Any, **named: Any) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(Path, "mkdir", refused)
        with pytest.raises(StorageError, match=os.strerror(code)), at_work(tmp_path / "a", None, clean=True):
            raise AssertionError

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_parent(self, tmp_path):
        tmp_path.chmod(0o500)
        try:
            with pytest.raises(StorageError, match="Permission denied"), at_work(tmp_path / "a", None, clean=True):
                raise AssertionError
        finally:
            tmp_path.chmod(0o700)

    def test_what_is_vacant(self, tmp_path):
        path = tmp_path / "a"
        assert is_vacant(path)
        (path / "training").mkdir(parents=True)
        assert is_vacant(path)
        (path / "training" / "lock").touch()  # of a fit that died before it had begun to train
        assert is_vacant(path) and output_path(path, None) == path
        (path / "training" / "fit.json").write_text("{}")
        assert not is_vacant(path)

    def test_a_folder_of_the_users_own_that_is_called_the_same_is_not(self, tmp_path):
        (tmp_path / "training").mkdir()
        (tmp_path / "training" / "rows.csv").write_text("text,label")
        assert not is_vacant(tmp_path)
        with pytest.raises(PathExistsError, match="exists and is not empty"):
            output_path(tmp_path, None)
        with pytest.raises(PathExistsError), at_work(tmp_path, None, clean=True):
            raise AssertionError
        assert (tmp_path / "training" / "rows.csv").is_file()

    def test_an_interrupted_fit_is_not_written_over(self, tmp_path):
        interrupted(tmp_path / "a")
        with pytest.raises(
            PathExistsError, match=r"was interrupted\. To go on .*resume=True.*--resume\. Otherwise choose"
        ):
            output_path(tmp_path / "a", None)

    def test_one_that_is_gone_on_with_stays_where_it_is(self, tmp_path):
        interrupted(tmp_path / "a")
        assert output_path(None, tmp_path / "a", resumes=True) == tmp_path / "a"
        with pytest.raises(ConfigError, match="goes on where it is"):
            output_path(tmp_path / "b", tmp_path / "a", resumes=True)


class TestRecord:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(ArtifactError, match="no interrupted fit at .*Fit without resume"):
            read_record(tmp_path / "a")

    def test_a_finished_fit(self, tmp_path):
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(ArtifactError, match="is finished: there is nothing to resume"):
            read_record(tmp_path)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ('{"format": 2}', "not written by this version"),
            ("{}", "not written by this version"),
            ("[]", "has to hold one JSON object"),
            ('{"format": 1', "cannot be read"),
        ],
    )
    def test_one_that_is_not_ours(self, tmp_path, content, said):
        (tmp_path / "training").mkdir()
        (tmp_path / "training" / "fit.json").write_text(content)
        with pytest.raises(ArtifactError, match=said):
            read_record(tmp_path)

    def test_it_is_json(self, tmp_path):
        interrupted(tmp_path / "a", {"settings": {"optim.lr": 1e-3}})
        record = json.loads((tmp_path / "a" / "training" / "fit.json").read_text())
        assert record["settings"] == {"optim.lr": 1e-3} and record["format"] == 1 and record["standalone"] is None

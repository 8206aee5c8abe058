"""What one process makes of a launcher's words, without any other process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from featherfit.config.dotted import build_config
from featherfit.data.batch import training_batches
from featherfit.errors import ConfigError, RankLostError, TrainingError
from featherfit.report import Reporter
from featherfit.training import launch
from featherfit.training.ranks import ALONE, Ranks, join

MINE = (socket.gethostname(), os.getpid())
ELSEWHERE = ("another machine", 1)


@pytest.fixture
def launched(monkeypatch):
    """Makes this process rank 1 of 2, or another."""

    def tell(rank: int = 1, world: int = 2, **more: str) -> None:
        told = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, **more}
        for name, value in told.items():
            monkeypatch.setenv(name, str(value))

    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(launch, "_GRACE", 0.01)
    monkeypatch.setattr(launch, "_PEERS", [])
    return tell


@pytest.fixture
def ended() -> tuple[str, int]:
    """A process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return (MINE[0], process.pid)


class TestWithoutALauncher:
    def test_there_is_one_rank(self, launched):
        assert join(build_config({}), on_gpu=False) is ALONE
        assert launch.in_charge() and launch.speaks() and launch.tells(ValueError())

    def test_a_launcher_of_a_single_process_is_none(self, launched):
        launched(rank=0, world=1)
        assert launch.Launch.of_this_process() is None

    def test_a_strategy_without_effect_is_told(self, launched):
        with pytest.warns(UserWarning, match=r"env\.strategy='fsdp' has no effect in a single process\. .*torchrun"):
            assert join(build_config({"env.strategy": "fsdp"}), on_gpu=False) is ALONE

    def test_several_gpus_need_several_processes(self, launched):
        with pytest.raises(ConfigError, match=r"env\.num_gpus=4 needs as many .*torchrun --nproc_per_node 4 "):
            join(build_config({"env.num_gpus": 4}), on_gpu=True)

    def test_cleaning_up(self, launched):
        done: list[int] = []
        with pytest.raises(KeyError), launch.together(lambda: done.append(1)):
            raise KeyError
        with launch.together():
            pass
        assert done == [1]


@pytest.mark.parametrize(
    ("settings", "told", "problem"),
    [
        ({"env.num_gpus": 4}, {}, r"env\.num_gpus=4, and the launcher started 2 processes"),
        ({"env.strategy": "fsdp", "optim.peft": None}, {}, r"with optim\.peft=null none are frozen"),
        ({"optim.peft": None}, {"ACCELERATE_USE_FSDP": "true"}, r"with optim\.peft=null none are frozen"),
        ({}, {"ACCELERATE_USE_DEEPSPEED": "true"}, r"DeepSpeed is not in this version"),
    ],
)
def test_what_does_not_go_with_the_launch_is_refused_before_ranks_meet(launched, settings, told, problem):
    launched(**told)
    with pytest.raises(ConfigError, match=problem):
        join(build_config(settings), on_gpu=False)


class TestWhoSpeaks:
    def test_the_first_rank(self, launched, capsys):
        launched(rank=0)
        Reporter().result("heard")
        assert launch.tells(ValueError()) and capsys.readouterr().out == "heard\n"

    def test_the_others_tell_errors_only(self, launched, capsys):
        launched(rank=1)
        reporter = Reporter(4, True)
        for say in (reporter.info, reporter.warn, reporter.result):
            say("not heard")
        reporter.scores_table([{"a": 1}])
        assert capsys.readouterr() == ("", "") and not reporter.bars
        reporter.error("wrong")
        assert "wrong" in capsys.readouterr().err

    @pytest.mark.parametrize("of_first", ["running", "ended", "elsewhere"])
    def test_of_a_lost_rank_the_lowest_that_is_left(self, launched, ended, of_first, monkeypatch):
        launched(rank=1)
        first = {"running": MINE, "ended": ended, "elsewhere": ELSEWHERE}[of_first]
        monkeypatch.setattr(launch, "_PEERS", [first, MINE])
        assert launch.in_charge() == launch.tells(RankLostError("")) == (of_first == "ended")


class TestALostRank:
    def test_it_is_named(self, launched, ended, monkeypatch):
        launched(rank=1)
        monkeypatch.setattr(launch, "_PEERS", [ended, MINE])
        done: list[int] = []
        with pytest.raises(RankLostError, match=rf"Rank 0 \(process {ended[1]} on .*\) ended before"):
            with launch.together(lambda: done.append(1)):
                raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
        assert done == [1]  # the one that should have cleaned up is gone
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def test_one_that_ends_slowly_is_cleaned_up_after(self, launched, monkeypatch):
        """Its connections close before the system says that it has ended."""
        launched(rank=1)
        monkeypatch.setattr(launch, "_GRACE", 5.0)
        monkeypatch.setattr(launch, "_PEERS", [ELSEWHERE, MINE])
        asked: list[tuple[str, int]] = []
        monkeypatch.setattr(
            launch, "_gone", lambda peer: peer == ELSEWHERE and asked.append(peer) is None and len(asked) > 2
        )
        done: list[int] = []
        with pytest.raises(RankLostError, match="Rank 0 "), launch.together(lambda: done.append(1)):
            raise RuntimeError("Connection closed by peer")
        assert done == [1]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def test_one_that_hangs_cannot_be_named(self, launched, monkeypatch):
        launched(rank=0)
        monkeypatch.setattr(launch, "_PEERS", [MINE, ELSEWHERE])
        with pytest.raises(RankLostError, match="Another rank, one on another machine or one that hangs"):
            with launch.together():
                raise RuntimeError("Timed out waiting 4000ms for recv operation to complete")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    @pytest.mark.parametrize("error", [TrainingError("gloo"), RuntimeError("a mistake"), ValueError("gloo")])
    def test_other_errors_stay_what_they_are(self, launched, ended, error, monkeypatch):
        launched(rank=0)
        monkeypatch.setattr(launch, "_PEERS", [MINE, ended])
        with pytest.raises(type(error)) as caught, launch.together():
            raise error
        assert caught.value is error
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def test_asked_to_end_it_cleans_up(self, launched, ended, monkeypatch):
        launched(rank=0)
        done: list[int] = []
        with pytest.raises(RankLostError, match="Rank 1 "), launch.together(lambda: done.append(1)):
            launch.met([MINE, ended])
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert done == [1]
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class TestShares:
    @pytest.mark.parametrize("world", [1, 2, 3, 7])
    def test_every_part_is_somebodys(self, world):
        parts = list(range(5))
        assert sorted(part for rank in range(world) for part in Ranks(rank, world).share(parts)) == parts

    @pytest.mark.parametrize("world", [2, 3, 7])
    def test_as_many_for_all_where_all_have_to_compute_equally_often(self, world):
        shares = [Ranks(rank, world, sharded=True).share(list("abcde")) for rank in range(world)]
        assert {len(share) for share in shares} == {-(-5 // world)} and {
            part for share in shares for part in share
        } == set("abcde")

    @pytest.mark.parametrize("shares", [2, 3])
    def test_shares_of_a_step_are_its_rows_and_of_equal_length(self, shares):
        lengths = np.random.default_rng(0).integers(3, 60, size=100)
        whole = training_batches(lengths, 16, 200, padded=False, seed=1, epoch=2)
        parts = [
            training_batches(lengths, 16, 200, padded=False, seed=1, epoch=2, share=share, shares=shares)
            for share in range(shares)
        ]
        for step, *own in zip(whole, *parts, strict=True):
            rows = [np.concatenate(share) for share in own]
            assert sorted(np.concatenate(rows)) == sorted(np.concatenate(step))
            tokens = [lengths[part].sum() for part in rows]
            assert max(tokens) - min(tokens) <= lengths[np.concatenate(step)].max()

    def test_a_step_of_fewer_rows_than_ranks(self):
        own = training_batches(np.array([5, 6, 7]), 2, 50, padded=False, seed=0, epoch=0, share=1, shares=2)
        assert [len(step) for step in own] == [1, 0]

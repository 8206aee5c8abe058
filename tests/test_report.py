"""What is shown where, and when."""

from __future__ import annotations

import io
import sys

import pandas as pd
import pytest

from featherfit.report import QUIET_VARIABLES, Reporter, human_count
from featherfit.types import ModelSize, StepReport

# The encoder of FLAN-T5-XL under ia3_bias, as AutoMM's tutorial shows it: 203 K of 1.2 B parameters, 4,894.913 MB.
SIZE = ModelSize(
    total=1_223_728_130,
    trainable=203_778,
    megabytes=4_894.91252,
    adapters=96,
    by_part={"encoder": (199_680, 1_223_724_032), "head": (4_098, 4_098)},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in (*QUIET_VARIABLES, "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def put(stream: io.StringIO, monkeypatch) -> io.StringIO:
    """Makes `stream` the stderr; in the test and not in a fixture, since pytest lays its own after fixtures have run."""
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def step(number: int, score: float | None = None) -> StepReport:
    return StepReport(
        step=number,
        total_steps=10,
        epoch=1,
        loss=0.5,
        rows=32 * number,
        seconds=2.0 * number,
        learning_rate=1e-3,
        score=score,
    )


def train(reporter: Reporter) -> None:
    with reporter.training_progress(10, "roc_auc") as progress:
        for number in range(1, 5):
            progress.update(step(number, score=0.9 if number == 2 else None))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1_000, "1.0 K"),
        (99_999, "99.9 K"),
        (203_778, "203 K"),
        (999_999, "999 K"),
        (21_300_000, "21.3 M"),
        (278_238_722, "278 M"),
        (1_223_728_130, "1.2 B"),
        (70_553_706_496, "70.5 B"),
    ],
)
def test_human_count(number, text):
    assert human_count(number) == text


class TestModelTable:
    def test_numbers_of_the_tutorial(self, capsys):
        Reporter().model_table(SIZE, "flan-t5-xl, ia3_bias")
        shown = capsys.readouterr()
        assert shown.out == ""
        rows = {line.split("│")[1].strip(): line for line in shown.err.splitlines() if "│" in line}
        assert list(rows) == ["encoder", "head", "total"]
        for text in ("1.2 B (1,223,728,130)", "203 K (203,778)", "0.017 %"):
            assert text in rows["total"]
        assert "4.0 K (4,098)" in rows["head"] and "100.000 %" in rows["head"]
        assert "4,894.913 MB, 96 adapters" in shown.err

    def test_silent_below_two(self, capsys):
        Reporter(1).model_table(SIZE, "a title")
        assert capsys.readouterr().err == ""


class TestVerbosity:
    @pytest.mark.parametrize(
        ("verbosity", "shown"),
        [(0, ["e"]), (1, ["w", "e"]), (2, ["i", "w", "e"]), (4, ["i", "w", "e"])],
    )
    def test_messages(self, capsys, verbosity, shown):
        reporter = Reporter(verbosity)
        reporter.info("i")
        reporter.warn("w")
        reporter.error("e")
        assert [line[-1] for line in capsys.readouterr().err.splitlines()] == shown

    def test_brackets_and_long_lines_stay_whole(self, capsys):
        message = "key=[bold] " + "word " * 100
        Reporter().info(message)
        Reporter().warn(message)
        assert capsys.readouterr().err.splitlines() == [message, f"Warning: {message}"]

    @pytest.mark.parametrize(("verbosity", "lines"), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 4)])
    def test_lines_of_a_training_without_a_bar(self, capsys, verbosity, lines):
        train(Reporter(verbosity))
        assert len(capsys.readouterr().err.splitlines()) == lines

    def test_line_of_a_validation(self, capsys):
        train(Reporter())
        assert (
            capsys.readouterr().err == "step 2/10, epoch 1: loss 0.5000, val roc_auc 0.9000, 16.0 rows/s, 16 s left\n"
        )


class TestBars:
    def test_on_a_terminal_only(self, monkeypatch):
        put(Terminal(), monkeypatch)
        assert Reporter().bars
        put(io.StringIO(), monkeypatch)
        assert not Reporter().bars
        assert Reporter(enable_progress_bar=True).bars

    @pytest.mark.parametrize("name", QUIET_VARIABLES)
    def test_switches(self, monkeypatch, name):
        put(Terminal(), monkeypatch)
        monkeypatch.setenv(name, "0")
        assert Reporter().bars
        monkeypatch.setenv(name, "1")
        assert not Reporter().bars
        assert not Reporter(enable_progress_bar=True).bars

    def test_argument_and_verbosity(self, monkeypatch):
        put(Terminal(), monkeypatch)
        assert not Reporter(enable_progress_bar=False).bars
        assert not Reporter(1).bars
        assert not Reporter(1, enable_progress_bar=True).bars

    def test_automm_names(self):
        assert {"AUTOMM_DISABLE_PROGRESS_BAR", "AUTOMM_TUTORIAL_MODE"} < set(QUIET_VARIABLES)

    def test_training_bar(self, monkeypatch):
        terminal = put(Terminal(), monkeypatch)
        train(Reporter())
        shown = terminal.getvalue()
        assert "4/10" in shown and "loss 0.5000, val roc_auc 0.9000, 16.0 rows/s" in shown
        assert "step 2/10" not in shown

    def test_lines_beside_a_bar(self, monkeypatch):
        terminal = put(Terminal(), monkeypatch)
        train(Reporter(3))
        assert terminal.getvalue().count("step ") == 1
        assert "step 2/10, epoch 1" in terminal.getvalue()

    def test_forced_bar(self, monkeypatch):
        stream = put(io.StringIO(), monkeypatch)
        train(Reporter(enable_progress_bar=True))
        assert "\x1b[" in stream.getvalue() and "4/10" in stream.getvalue()

    def test_prediction(self, monkeypatch):
        terminal = put(Terminal(), monkeypatch)
        with Reporter().prediction_progress(1000) as progress:
            progress(600)
            progress(400)
        assert "1000/1000" in terminal.getvalue()
        with Reporter().prediction_progress(10) as progress:
            assert progress is None
        with Reporter(1).prediction_progress(1000) as progress:
            assert progress is None


class TestResults:
    def test_scores_go_to_stdout(self, capsys):
        Reporter(0).scores_table([{"language": "[ja]", "rows": 70, "roc_auc": 0.98765}], "scores")
        shown = capsys.readouterr()
        assert shown.err == "" and "scores" in shown.out
        cells = [line.split("│")[1:-1] for line in shown.out.splitlines() if "│" in line]
        assert [cell.strip() for cell in cells[-1]] == ["[ja]", "70", "0.9877"]

    def test_nothing_for_no_rows(self, capsys):
        Reporter().scores_table([], "scores")
        assert capsys.readouterr().out == ""

    def test_wide_where_the_width_is_unknown(self, capsys):
        text = "word " * 30
        Reporter().scores_table([{"review": text}])
        assert text.strip() in capsys.readouterr().out

    def test_result_is_written_as_it_is(self, capsys):
        Reporter(0).result('{"a": "[b]"}')
        Reporter(0).result("x\n")
        assert capsys.readouterr().out == '{"a": "[b]"}\nx\n'


class TestRejections:
    def rows(self, number: int, **more: str) -> pd.DataFrame:
        cells = [
            {"position": row, "index": f"r{row}", "column": "text", "reason": "no text [b]", **more}
            for row in range(number)
        ]
        return pd.DataFrame(cells)

    def test_the_first_and_how_many_more(self, capsys):
        Reporter(1).rejections(self.rows(13))
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert out == "" and lines[0] == "  Row 'r0', column 'text': no text [b]." and len(lines) == 11
        assert lines[-1] == "  and 3 more cells."

    def test_of_which_table(self, capsys):
        Reporter(2).rejections(self.rows(1, table="tuning_data"))
        assert capsys.readouterr().err == "  Row 'r0' of tuning_data, column 'text': no text [b].\n"

    def test_silence(self, capsys):
        Reporter(0).rejections(self.rows(3))
        Reporter(2).rejections(self.rows(0))
        assert capsys.readouterr() == ("", "")

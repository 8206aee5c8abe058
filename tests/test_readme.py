"""The code in the README runs, on fewer rows than it would train on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import featherfit.demo

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DATA_CARD = ROOT / "src" / "featherfit" / "demo" / "data" / "README.md"
FEW = 24
TESTED_ELSEWHERE = {"featherfit demo": "tests/test_demo.py"}


def fenced_blocks(path: Path, *languages: str) -> list[str]:
    """Contents of the code blocks with one of these marks; an empty one stands for blocks without a mark."""
    parts = re.split(r"^```(.*)\n", path.read_text("utf-8") + "\n", flags=re.MULTILINE)
    # Text, mark, content, the closing fence's empty mark, text, mark, ...
    return [content for mark, content in zip(parts[1::4], parts[2::4], strict=True) if mark in languages]


DEMO_TABLE = featherfit.demo.demo_table


def commands(path: Path) -> list[list[str]]:
    """Words of the lines that call featherfit, comments left out."""
    text = "\n".join(fenced_blocks(path, "", "bash", "sh", "console")).replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.startswith("featherfit ")]


@pytest.fixture
def few_rows(monkeypatch):
    """Makes the demo's tables short."""
    whole = featherfit.demo.demo_table
    monkeypatch.setattr(featherfit.demo, "demo_table", lambda *words: whole(*words).head(FEW))
    return featherfit.demo.demo_table


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, DATA_CARD], ids=["README", "data card"])
def test_python_blocks(page, few_rows, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = fenced_blocks(page, "python")
    assert blocks, f"{page} has no python block"
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(page), "exec"), namespace)
    if page == README:
        assert "roc_auc" in capsys.readouterr().out


@pytest.mark.slow
def test_commands(few_rows, tmp_path):
    few_rows("en", "train")[["text", "label"]].to_csv(tmp_path / "train.csv", index=False)
    few_rows("en")[["text", "label"]].to_csv(tmp_path / "test.csv", index=False)
    few_rows("ja")[["text"]].to_csv(tmp_path / "new.csv", index=False)
    found = commands(README)
    assert {words[1] for words in found} >= {"fit", "evaluate", "predict", "inspect", "checkpoints", "demo"}
    for words in found:
        elsewhere = TESTED_ELSEWHERE.get(" ".join(words))
        if elsewhere is not None:
            assert (ROOT / elsewhere).is_file()
            continue
        command = [sys.executable, "-m", *words]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
        assert done.stdout or "--output" in words
    assert (tmp_path / "predictions.csv").is_file()


@pytest.mark.slow
def test_pages_on_rows_and_resuming(few_rows, tmp_path, monkeypatch, capsys):
    """Line by line, as somebody would try them."""
    monkeypatch.chdir(tmp_path)
    enough = DEMO_TABLE("en", "train").head(200)  # with fewer, the preset begins with a start that is not resumed
    enough[["text", "label"]].to_csv("train.csv", index=False)
    few_rows("en")[["text", "label"]].to_csv("test.csv", index=False)
    few_rows("ja")[["text"]].to_csv("new.csv", index=False)

    def shell(words: list[str]) -> None:
        done = subprocess.run([sys.executable, "-m", *words], env=os.environ, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"

    def python(page: Path) -> None:
        for block in fenced_blocks(page, "python"):
            exec(compile(block, str(page), "exec"), {})

    rows, resume = ROOT / "docs" / "rows.md", ROOT / "docs" / "resume.md"
    begin, go_on = commands(resume)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of columns that are not used, and of few rows
        for again in (lambda: shell(go_on), lambda: python(resume)):
            shell(begin)
            assert Path("my_model/training/fit.json").is_file()
            again()
            assert not Path("my_model/training").exists()
            shutil.rmtree("my_model")
        shell(begin)
        python(rows)
    assert "bytes is neither text nor a number" in capsys.readouterr().out
    for words in commands(rows):
        shell(words)
    assert Path("rejected.csv").read_text() == "position,index,column,reason\n"


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text("utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_peft_method_is_in_the_table():
    from featherfit.config.schema import PEFT_METHODS

    text = README.read_text("utf-8")
    plain = [name for name in PEFT_METHODS if not name.endswith(("_bias", "_norm"))]
    assert [name for name in plain if f"`{name}`" not in text] == []
    assert "`*_bias` `*_norm`" in text

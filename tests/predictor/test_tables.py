"""Tables with columns of every type, from fit to a new process."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_checkpoints import quick_fit, same, weights
from tiny_tables import ROWS, TABULAR, table, with_gaps

from featherfit import MultiModalPredictor
from featherfit.artifact import format as files
from featherfit.artifact.store import inspect_artifact
from featherfit.errors import ArtifactError, ConfigError, DataError


@pytest.fixture(scope="module")
def predictor(checkpoint, tmp_path_factory) -> MultiModalPredictor:
    return quick_fit(checkpoint, tmp_path_factory.mktemp("tables") / "artifact", with_gaps(table()))


def test_every_type_is_read(predictor):
    fitted = predictor._fitted
    assert {name: predictor.column_types[name] for name in TABULAR} == TABULAR
    assert list(fitted.model.encoders()) == ["ft_transformer", "hf_text"] and fitted.model.fusion is not None
    before = predictor.predict_proba(table())
    others = {
        "text": "never broken",
        "colour": "blue",
        "member": True,
        "price": 1e6,
        "when": pd.Timestamp("2024-02-20"),
    }
    for name, value in others.items():
        assert not before.equals(predictor.predict_proba(table().assign(**{name: value}))), name


def test_explained(predictor):
    explained = predictor.explain_schema().set_index("column")
    assert explained["type"].to_dict() == {"text": "text", **TABULAR}
    assert explained["read_by"].to_dict() == {"text": "hf_text", **dict.fromkeys(TABULAR, "ft_transformer")}
    assert explained.loc["price", "because"] == "`price` is numerical because its dtype is float64."


@pytest.mark.parametrize("column", TABULAR)
@pytest.mark.parametrize("kind", ["missing", "unseen", "constant"])
def test_odd_values_in_evaluate_and_predict(predictor, column, kind):
    frame = table(16, seed=3)
    unseen = {"colour": "ultraviolet", "member": None, "price": -1e300, "when": pd.Timestamp("1900-01-01")}
    value = {"missing": None, "unseen": unseen[column], "constant": frame[column].iloc[0]}[kind]
    if kind == "missing":
        frame = frame.astype({column: object})
    odd = frame.assign(**{column: value})
    before = odd.copy(deep=True)
    assert 0 <= predictor.evaluate(odd)["roc_auc"] <= 1
    proba = predictor.predict_proba(odd)
    assert proba.notna().all().all() and proba.index.equals(odd.index)
    pd.testing.assert_frame_equal(odd, before)
    # A single odd cell changes its own row and no other.
    one = frame.astype({column: object})
    one.iloc[5, one.columns.get_loc(column)] = value
    plain, changed = predictor.predict_proba(frame), predictor.predict_proba(one)
    np.testing.assert_allclose(plain.drop(frame.index[5]), changed.drop(frame.index[5]), atol=1e-6)


def test_a_row_alone_or_among_others(predictor):
    frame = with_gaps(table(20, seed=5))
    together = predictor.predict_proba(frame)
    turned = predictor.predict_proba(frame[::-1])
    assert turned[::-1].equals(together)  # to the bit, whatever the order
    for place in range(20):
        alone = predictor.predict_proba(frame.iloc[[place]])
        np.testing.assert_allclose(alone, together.iloc[[place]], atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"same": 7}, "`same` is null because every row has the same value. It is not used."),
        ({"none": None}, "`none` is null because all its values are missing. It is not used."),
    ],
)
def test_constant_columns_are_dropped_with_a_message(columns, told, checkpoint, tmp_path, capsys):
    frame = table().assign(**columns)
    predictor = MultiModalPredictor(label="label", path=tmp_path / "a", verbosity=2)
    more = {"model.hf_text.checkpoint_name": str(checkpoint), "optim.max_epochs": 1, "model.names": ["ft_transformer"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predictor.fit(frame, hyperparameters=more)
    assert told in " ".join(capsys.readouterr().err.split())
    name = next(iter(columns))
    assert predictor.predict_proba(frame).equals(predictor.predict_proba(frame.drop(columns=name)))


def test_identifiers_are_dropped_with_a_warning(checkpoint, tmp_path):
    frame = table().assign(code=[f"user_{place:06d}" for place in range(ROWS)], number=range(ROWS))
    with pytest.warns(UserWarning, match=r"Columns 'code' \(identifier\), 'number' \(identifier\) are not used"):
        predictor = quick_fit(checkpoint, tmp_path / "a", frame)
    assert predictor.explain_schema().set_index("column").loc["number", "because"] == (
        "`number` is identifier because it counts the rows."
    )


def test_column_types_win(checkpoint, tmp_path):
    frame = table().assign(code=[f"user_{place % 5:06d}" for place in range(ROWS)], stars=[1, 2, 3] * 16)
    types = {"stars": "categorical", "colour": "text", "code": "categorical"}
    predictor = quick_fit(checkpoint, tmp_path / "a", frame, column_types=types)
    explained = predictor.explain_schema().set_index("column")
    assert {name: explained.loc[name, "type"] for name in types} == types
    assert explained.loc["colour", "read_by"] == "hf_text"
    assert explained.loc["stars", "because"] == "`stars` is categorical because column_types says so."
    fitted = {one.column: one.categories for one in predictor._fitted.parts["ft_transformer"].categories}
    assert sorted(fitted["stars"]) == ["1", "2", "3"]


def test_odd_cells(predictor):
    odd = table(8).astype({"price": object})
    odd.loc[103, "price"] = "dear"
    for call in (predictor.predict, predictor.evaluate):
        with pytest.raises(DataError, match="Row 103, column 'price': 'dear' is no number"):
            call(odd)
    with pytest.warns(UserWarning, match="1 row of 8 could not be processed"):
        found = predictor.predict_proba(odd, on_error="report")
    assert found.loc[103].isna().all() and found.drop(103).notna().all().all()
    assert predictor.rejected_rows[["index", "column", "reason"]].values.tolist() == [
        [103, "price", "'dear' is no number"]
    ]
    with pytest.raises(DataError, match=r"lacks the columns 'price'"):
        predictor.predict(table(4).drop(columns="price"))


def test_learns_from_columns_and_from_text(checkpoint, tmp_path):
    frame = table(160).assign(text="the box")
    more = {"optim.max_epochs": 12, "optim.lr": 0.003}
    with_columns = quick_fit(
        checkpoint, tmp_path / "a", frame.assign(other=frame["colour"] + " box"), hyperparameters=more
    )
    held = table(80, seed=9).assign(text="the box")
    assert with_columns.evaluate(held.assign(other=held["colour"] + " box"))["roc_auc"] > 0.9
    alone = quick_fit(checkpoint, tmp_path / "b", frame, hyperparameters=more)
    assert alone._fitted.model.encoder is None and alone._fitted.model.fusion is None  # the text is constant
    assert alone.evaluate(held)["roc_auc"] > 0.9


NAMES = {
    "mlp": ["ft_transformer", "hf_text", "fusion_mlp"],
    "transformer": ["hf_text", "ft_transformer", "fusion_transformer"],
    "logits": ["ft_transformer", "hf_text", "fusion_logits"],
    "table": ["ft_transformer"],
}
SCRIPT = """
import sys
import pandas as pd
from featherfit import MultiModalPredictor
folder, data, out = sys.argv[1:]
MultiModalPredictor.load(folder, verbosity=0).predict_proba(pd.read_parquet(data)).to_parquet(out)
"""


@pytest.mark.parametrize("peft", ["lora", None])
@pytest.mark.parametrize("kind", NAMES)
def test_round_trip(kind, peft, checkpoint, tmp_path):
    more = {"model.names": NAMES[kind], "optim.peft": peft, "model.fusion_mlp.aux_loss_weight": 0.3, "optim.lr": 0.003}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # text that ft_transformer alone does not read
        predictor = quick_fit(checkpoint, tmp_path / "a", with_gaps(table()), hyperparameters=more)
    frame = with_gaps(table(16, seed=2))
    again = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
    assert same(weights(predictor), weights(again))
    assert again.predict_proba(frame).equals(predictor.predict_proba(frame))
    assert again.explain_schema().equals(predictor.explain_schema())
    again.fit(table(), save_path=tmp_path / "b")
    assert not same(weights(again), weights(predictor))


def test_in_a_new_process(predictor, tmp_path):
    frame = with_gaps(table(16, seed=2)).reset_index(drop=True)
    frame.to_parquet(tmp_path / "rows.parquet")
    files_ = [str(tmp_path / name) for name in ("rows.parquet", "out.parquet")]
    subprocess.run([sys.executable, "-c", SCRIPT, predictor.path, *files_], check=True, timeout=100)
    found = pd.read_parquet(tmp_path / "out.parquet").to_numpy()
    assert np.array_equal(found, predictor.predict_proba(pd.read_parquet(tmp_path / "rows.parquet")).to_numpy())


def test_what_is_saved(predictor):
    folder = Path(predictor.path)
    from safetensors import safe_open

    with safe_open(folder / files.WEIGHTS, "pt") as opened:
        parts = {name.partition(".")[0] for name in opened.keys()}
    assert parts == {"encoder", "others", "fusion", "head"}
    processors = json.loads((folder / files.SCHEMA).read_text())["processors"]
    assert processors["ft_transformer"]["categories"][0] == {
        "column": "colour", "boolean": False, "categories": ["blue", "red", "green"],
    } or sorted(processors["ft_transformer"]["categories"][0]["categories"]) == ["blue", "green", "red"]  # fmt: skip
    assert inspect_artifact(folder)["columns"]["price"] == "numerical"
    size = predictor.total_parameters
    assert size == sum(p.numel() for p in predictor._fitted.model.parameters())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p["numbers"][0]["edges"].reverse(), "edges have to rise"),
        (lambda p: p["numbers"][0]["quantiles"].reverse(), "quantiles have to rise"),
        (lambda p: p["numbers"][0].update(scale=0.0), "greater than 0"),
        (lambda p: p["numbers"].append({**p["numbers"][0], "column": "when"}), "other columns than the processors"),
        (lambda p: p["numbers"][0].update(indicator=False), "of another shape: others.ft_transformer"),
        (
            lambda p: p["categories"][0]["categories"].append("more"),
            "of another shape: others.ft_transformer.categories",
        ),
        (lambda p: p["categories"][0]["categories"].append("red"), "stands there twice"),
        (lambda p: p["categories"].pop(), "other columns than the processors"),
        (lambda p: p["times"][0].update(format="%Q"), "format"),
        (lambda p: p["times"][0].update(cycles=["moon"]), "cycles"),
        (lambda p: p.update(more=[]), "more"),
    ],
)
def test_damage(change, reason, predictor, tmp_path):
    import shutil

    copy = Path(shutil.copytree(predictor.path, tmp_path / "copy"))
    schema = json.loads((copy / files.SCHEMA).read_text())
    change(schema["processors"]["ft_transformer"])
    (copy / files.SCHEMA).write_text(json.dumps(schema))
    files.write_checksums(copy)
    with pytest.raises(ArtifactError, match=reason):
        MultiModalPredictor.load(copy, verbosity=0)


def test_files_in_chunks(predictor, tmp_path):
    frame = pd.concat([with_gaps(table(16, seed=2))] * 2, ignore_index=True)
    frame.to_parquet(tmp_path / "rows.parquet")
    done = predictor.predict_file(tmp_path / "rows.parquet", tmp_path / "out.parquet", proba=True, chunk_rows=5)
    assert (done.rows, done.computed) == (32, 16)
    expected = predictor.predict_proba(pd.read_parquet(tmp_path / "rows.parquet"))
    found = pd.read_parquet(tmp_path / "out.parquet")
    np.testing.assert_allclose(found[["proba_0", "proba_1"]], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("template", "written"),
    [("direct", "red"), ("list", "colour: red"), ("text", "colour is red"), ("latex", "red & ")],
)
def test_categories_as_text(template, written, checkpoint, tmp_path):
    more = {
        "data.categorical.convert_to_text": True, "data.categorical.convert_to_text_template": template,
        "model.names": ["hf_text"], "optim.max_epochs": 1,
    }  # fmt: skip
    frame = table()[["colour", "label"]]
    predictor = quick_fit(checkpoint, tmp_path / "a", frame, hyperparameters=more)
    text = predictor._fitted.text
    ids = text(pd.DataFrame({"colour": ["red", None]})).ids
    assert ids[0].tolist() == text.tokenizer(written)["input_ids"]
    assert ids[1].tolist() == text.tokenizer("")["input_ids"]
    loaded = MultiModalPredictor.load(tmp_path / "a", verbosity=0)
    assert loaded.predict_proba(frame).equals(predictor.predict_proba(frame))


def test_auxiliary_losses_are_added(checkpoint, tmp_path):
    """The reported loss of the first step is the sum that AutoMM trains on."""
    from featherfit.data.batch import collate
    from featherfit.data.dataset import make_dataset
    from featherfit.training.loop import accumulate
    from featherfit.training.losses import Objective

    more = {"model.fusion_mlp.aux_loss_weight": 0.5, "optim.max_epochs": 1}
    fitted = quick_fit(checkpoint, tmp_path / "a", table(), hyperparameters=more)._fitted
    rows = make_dataset(table(), fitted.schema, fitted.text, fitted.label, parts=fitted.parts)
    batch = collate(rows.rows, np.arange(8), fitted.text.pad_id, rows.labels, parts=rows.parts)
    model = fitted.model.eval()
    loss = accumulate(model, [batch], fitted.device.accelerator(), Objective("cross_entropy", "binary", 2))
    with torch.no_grad():
        logits, own = model.all_logits(batch)
        each = [torch.nn.functional.cross_entropy(of, batch.labels) for of in (logits, *own.values())]
    assert loss == pytest.approx(float(each[0] + 0.5 * (each[1] + each[2])), rel=1e-5)


def test_the_table_encoder_learns_at_the_rate_of_the_head(predictor):
    from featherfit.config.dotted import build_config
    from featherfit.training.optim import parameter_groups

    model = predictor._fitted.model
    rates = {}
    for group in parameter_groups(model, build_config({"optim.peft": "ia3_bias"})):
        rates |= {id(parameter): group["lr"] for parameter in group["params"]}
    named = dict(model.named_parameters())
    own = {rates[id(p)] for name, p in named.items() if name.startswith(("others.", "fusion.", "head."))}
    assert own == {3e-3} and all(p.requires_grad for name, p in named.items() if name.startswith("others."))
    assert min(rates.values()) < 3e-3


def test_two_encoders_and_nothing_that_joins_them(checkpoint, tmp_path):
    with pytest.raises(ConfigError, match="nothing joins them"):
        quick_fit(checkpoint, tmp_path / "a", table(), hyperparameters={"model.names": ["hf_text", "ft_transformer"]})


def test_plan(checkpoint):
    more = {"model.hf_text.checkpoint_name": str(checkpoint), "env.precision": "32", "env.batch_size": 8}
    for names in (["ft_transformer", "hf_text", "fusion_mlp"], ["ft_transformer"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            planned = MultiModalPredictor(label="label", verbosity=0).plan(
                table(), hyperparameters={**more, "model.names": names}
            )
        assert planned.peak > 0 and planned.trainable > 90_000 and planned.seconds_per_step > 0


def test_probe(checkpoint, tmp_path):
    for kind in NAMES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            more = {"model.names": NAMES[kind], "optim.head_init": "probe", "optim.max_epochs": 1}
            quick_fit(checkpoint, tmp_path / kind, table(), hyperparameters=more)


def test_resumes_to_the_same_bits(checkpoint, tmp_path):
    more = {"optim.max_epochs": 2, "optim.lr": 0.003, "data.modality_dropout": 0.2}
    whole = quick_fit(checkpoint, tmp_path / "whole", table(), hyperparameters=more)
    quick_fit(checkpoint, tmp_path / "cut", table(), hyperparameters={**more, "env.state_interval": 0}, time_limit=1e-6)
    again = MultiModalPredictor.load(tmp_path / "cut", resume=True, verbosity=0).fit(table())
    assert same(weights(whole), weights(again))


def test_embeddings_and_int8(predictor):
    from featherfit.inference.int8 import multiplies_int8

    frame = with_gaps(table(16, seed=2))
    assert predictor.extract_embedding(frame).shape == (16, predictor._fitted.model.out_dim)
    if not multiplies_int8():
        pytest.skip("this torch has no int8 products")
    again = MultiModalPredictor.load(predictor.path, verbosity=0)
    with pytest.raises(ConfigError, match="reads columns besides text"):
        again.optimize_for_inference()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = again.optimize_for_inference(data=frame, max_loss=1.0)
    assert report.layers > 0
    np.testing.assert_allclose(again.predict_proba(frame), predictor.predict_proba(frame), atol=0.05)


def test_rows_left_out_of_a_fit(checkpoint, tmp_path):
    frame = table().astype({"price": object})
    frame.loc[105, "price"] = "dear"
    more = {"column_types": {"price": "numerical"}}
    with pytest.raises(DataError, match="Row 105, column 'price': 'dear' is no number"):
        quick_fit(checkpoint, tmp_path / "a", frame, **more)
    with pytest.warns(UserWarning, match="1 row of 48"):
        predictor = quick_fit(checkpoint, tmp_path / "b", frame, on_error="report", **more)
    assert predictor.rejected_rows["index"].tolist() == [105]
    assert sum(predictor.fit_summary()[f"{part}_rows"] for part in ("train", "validation")) == ROWS - 1

"""A `Fitted` goes in, the text of its model card comes out."""

from __future__ import annotations

from featherfit.artifact.fitted import Fitted
from featherfit.models.build import model_size


def model_card(fitted: Fitted, standalone: bool) -> str:
    """Markdown that says what the artifact is, on what it stands and how to use it."""
    size = model_size(fitted.model)
    label, schema = fitted.label, fitted.schema
    columns = ", ".join(f"`{name}`" for name in schema.label_columns)
    task = f"{label.problem_type} on {columns}"
    if label.levels:
        task += f", quantiles {', '.join(f'{level:g}' for level in label.levels)}"
    if not label.numeric:
        task += f", classes {', '.join(map(repr, label.classes.tolist()))}"
    needed = [
        f"`{one.name}` has to be at hand, with fingerprint `{one.fingerprint}`" for one in fitted.checkpoints.values()
    ]
    weights = (
        "Everything needed is in this folder."
        if standalone
        else f"The pretrained weights are not in this folder; {', and '.join(needed)}."
    )
    read = [*fitted.text.columns, *(name for part in fitted.parts.values() for name in part.columns)]
    columns = ", ".join(f"`{name}` ({schema.columns[name]})" for name in read)
    stands = "\n".join(f"- checkpoint: `{one.name}`" for one in fitted.checkpoints.values())
    results = "\n".join(f"- {key}: {value}" for key, value in fitted.summary.items())
    return f"""# Predictor for {columns}

Made with featherfit: {task}. Reads the columns {columns}.

{stands}
- method: {fitted.config.optim.peft or "full fine-tuning"}
- trained: {size.trainable:,} of {size.total:,} parameters

{weights}

```python
from featherfit import MultiModalPredictor

predictor = MultiModalPredictor.load("PATH OF THIS FOLDER")
predictor.predict(table)
```

## Training

{results}
"""

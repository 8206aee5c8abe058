"""AutoMM's method arguments that this version does not offer: data, and the one check that refuses them."""

from __future__ import annotations

from typing import Any

from featherfit.errors import ConfigError, UnsupportedError

_MATCHING = "matching pairs of columns is not offered yet"
_DETECTION = "it belongs to object detection, which is not offered"
_ENSEMBLE = "ensembles are not offered yet"

# method -> argument -> (the values that ask for nothing, why any other is refused)
REFUSED: dict[str, dict[str, tuple[tuple[Any, ...], str]]] = {
    "MultiModalPredictor": {
        "query": ((None,), _MATCHING),
        "response": ((None,), _MATCHING),
        "match_label": ((None,), _MATCHING),
        "num_classes": ((None,), _DETECTION),
        "classes": ((None,), _DETECTION),
        "sample_data_path": ((None,), _DETECTION),
        "pretrained": ((True,), "training from random weights is not what this library is for"),
        "use_ensemble": ((False,), _ENSEMBLE),
        "ensemble_size": ((2,), _ENSEMBLE),
        "ensemble_mode": (("one_shot",), _ENSEMBLE),
    },
    "fit": {
        "max_num_tuning_data": ((None,), _DETECTION),
        "id_mappings": ((None,), _MATCHING),
        "teacher_predictor": ((None,), "distillation is not offered yet"),
        "hyperparameter_tune_kwargs": ((None,), "hyperparameter search is not offered yet"),
        "predictions": ((None,), _ENSEMBLE),
        "labels": ((None,), _ENSEMBLE),
        "predictors": ((None,), _ENSEMBLE),
    },
    "evaluate": {
        "query_data": ((None,), _MATCHING),
        "response_data": ((None,), _MATCHING),
        "id_mappings": ((None,), _MATCHING),
        "chunk_size": ((1024,), _MATCHING),
        "similarity_type": (("cosine",), _MATCHING),
        "cutoffs": ((None, [1, 5, 10]), _MATCHING),
        "eval_tool": ((None,), _DETECTION),
        "predictions": ((None,), _ENSEMBLE),
        "labels": ((None,), _ENSEMBLE),
    },
    "predict": {
        "candidate_data": ((None,), _MATCHING),
        "id_mappings": ((None,), _MATCHING),
        "save_results": ((None, False), _DETECTION),
    },
    "predict_proba": {"candidate_data": ((None,), _MATCHING), "id_mappings": ((None,), _MATCHING)},
    "extract_embedding": {
        "id_mappings": ((None,), _MATCHING),
        "return_masks": ((False,), "every row has its text, so there is nothing to mask"),
        "signature": ((None,), _MATCHING),
    },
    "optimize_for_inference": {
        "providers": ((None,), "ONNX Runtime is not used; precision='int8' runs in PyTorch's own oneDNN")
    },
    "fit_summary": {"show_plot": ((False,), "training curves are not offered yet")},
}


def refuse_unsupported(method: str, given: dict[str, Any]) -> None:
    """Refuses every argument of `method` that asks for what we do not offer, all at once.

    Args:
        method: A key of `REFUSED`.
        given: The method's arguments by name; others than the listed ones are left alone.

    Raises:
        UnsupportedError: Names each argument and the reason.
    """
    refused = [
        f"{argument} is not supported: {reason}."
        for argument, (idle, reason) in REFUSED[method].items()
        if not any(given[argument] is value or _equal(given[argument], value) for value in idle)
    ]
    if refused:
        raise UnsupportedError(f"{method}: {' '.join(refused)} Leave {'it' if len(refused) == 1 else 'them'} out.")


def checked_names(given: Any, argument: str) -> str | list[str] | None:
    """The name of a column, or a list of different ones.

    Raises:
        ConfigError: Anything else.
    """
    if given is None or isinstance(given, str):
        return given
    names = list(given) if isinstance(given, list | tuple) else []
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ConfigError(f"{argument}={given!r} has to be the name of a column, or a list of different names.")
    return names


def checked_column(given: Any, argument: str) -> str | None:
    """The name of a column.

    Raises:
        ConfigError: Anything else.
    """
    if given is not None and not isinstance(given, str):
        raise ConfigError(f"{argument}={given!r} has to be the name of a column.")
    return given


def checked_levels(given: Any) -> list[float] | None:
    """Quantile levels, ascending.

    Raises:
        ConfigError: None at all, the same twice, or anything but numbers between 0 and 1.
    """
    if given is None:
        return None
    levels = list(given) if hasattr(given, "__iter__") and not isinstance(given, str) else []
    numbers = [level for level in levels if isinstance(level, int | float) and 0 < level < 1]
    if not levels or len(numbers) < len(levels) or len(set(numbers)) < len(numbers):
        raise ConfigError(
            f"quantile_levels={given!r} has to be a list of different numbers between 0 and 1, such as [0.1, 0.5, 0.9]."
        )
    return sorted(map(float, numbers))


def _equal(given: Any, value: Any) -> bool:
    # A table or an array compares element by element; only plain values can equal a default.
    return type(given) is type(value) and isinstance(value, bool | int | str | list) and given == value

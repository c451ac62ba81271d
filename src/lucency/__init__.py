"""Lucency: from chest X-rays to a comparison of networks one may believe."""

from importlib import import_module

_HOMES = {
    "Classifier": "lucency.learn.zoo",
    "Manifest": "lucency.values",
    "Plan": "lucency.plan",
    "Predictions": "lucency.predictions",
    "Preparation": "lucency.values",
    "Prepared": "lucency.values",
    "Protocol": "lucency.protocol",
    "compare": "lucency.judge.compare",
    "evaluate": "lucency.judge.evaluate",
    "load_classifier": "lucency.learn.zoo",
    "load_predictions": "lucency.predictions",
    "main": "lucency.launch",
    "open_run": "lucency.workspace",
    "predict_files": "lucency.learn.predict",
    "prepare_film": "lucency.data.film",
    "read_grey": "lucency.data.film",
    "read_nih": "lucency.data.nih",
    "read_protocol": "lucency.protocol",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"lucency has no {name!r}; expected one of {', '.join(_HOMES)}")
    return getattr(import_module(_HOMES[name]), name)

"""Lucency: from chest X-rays to a comparison of networks one may believe."""

from importlib import import_module

_HOMES = {
    "Classifier": "lucency.models.classifier",
    "Manifest": "lucency.core.manifest",
    "Plan": "lucency.core.plan",
    "Predictions": "lucency.core.predictions",
    "Preparation": "lucency.core.manifest",
    "Prepared": "lucency.core.manifest",
    "Protocol": "lucency.config.protocol",
    "compare": "lucency.evaluation.compare",
    "evaluate": "lucency.evaluation.evaluate",
    "load_classifier": "lucency.models.classifier",
    "load_predictions": "lucency.core.predictions",
    "main": "lucency.cli.launch",
    "open_run": "lucency.pipeline.run",
    "predict_files": "lucency.models.inference",
    "prepare_film": "lucency.data.preprocess",
    "read_grey": "lucency.data.images",
    "read_nih": "lucency.data.nih",
    "read_protocol": "lucency.config.protocol",
}
__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"lucency has no {name!r}; expected one of {', '.join(_HOMES)}")
    return getattr(import_module(_HOMES[name]), name)

"""Lucency: from chest X-rays to a comparison of networks one may believe.

`lucency.load`, `lucency.evaluate` and the other public names are imported when first used.
"""

from importlib import import_module

_HOMES = {
    "Classifier": "lucency.models.classifier",
    "Evaluation": "lucency.evaluation.summary",
    "Explanation": "lucency.pipeline.library",
    "Heatmaps": "lucency.explain.heatmaps",
    "Manifest": "lucency.core.manifest",
    "Model": "lucency.pipeline.library",
    "Plan": "lucency.core.plan",
    "Predictions": "lucency.core.predictions",
    "Preparation": "lucency.core.manifest",
    "Prepared": "lucency.core.manifest",
    "Protocol": "lucency.config.protocol",
    "Run": "lucency.pipeline.run",
    "RunResult": "lucency.pipeline.library",
    "check": "lucency.pipeline.library",
    "compare": "lucency.pipeline.library",
    "create_network": "lucency.pipeline.library",
    "evaluate": "lucency.pipeline.library",
    "list_networks": "lucency.pipeline.library",
    "load": "lucency.pipeline.library",
    "load_classifier": "lucency.models.classifier",
    "load_predictions": "lucency.core.predictions",
    "main": "lucency.cli.launch",
    "open_run": "lucency.pipeline.run",
    "predict_files": "lucency.pipeline.film_inference",
    "prepare": "lucency.pipeline.library",
    "prepare_film": "lucency.data.preprocess",
    "read_grey": "lucency.data.images",
    "read_nih": "lucency.data.labels",
    "read_protocol": "lucency.config.protocol",
    "run": "lucency.pipeline.library",
}
__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """Import a public name from its home when it is first used."""
    if name == "__version__":
        return import_module("importlib.metadata").version("lucency")
    if name not in _HOMES:
        raise AttributeError(f"lucency has no {name!r}; expected one of {', '.join(_HOMES)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

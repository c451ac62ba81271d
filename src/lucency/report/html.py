"""HTML pages from templates: style sheet, number formats, software versions."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent
PACKAGES = (
    "lucency", "torch", "torchvision", "timm", "accelerate", "albumentations",
    "opencv-python-headless", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib",
)  # fmt: skip
SMALLEST = 0.001  # of the p values that are printed
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


def render(template: str, **values: Any) -> str:
    """Return the HTML page of a template; `values` are escaped unless they are Markup."""
    css = Markup((FOLDER / "report.css").read_text(encoding="utf-8"))
    versions = {"Python": platform.python_version(), **dict(_versions())}
    return _jinja().get_template(template).render(css=css, versions=versions, **values)


def render_chapter(template: str, values: dict[str, Any], chapter: object) -> Markup:
    """Return the macro `chapter` of a template as HTML, called with a chapter's values."""
    module: Any = _jinja().get_template(template).make_module(values)
    return Markup(module.chapter(chapter))


def _jinja() -> Environment:
    jinja = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"decimal": decimal, "whole": whole, "p_value": p_value}
    return jinja


def decimal(number: int | float, places: int = 3) -> str:
    """Return `places` decimals with a true minus sign, or a dash for what is not computable."""
    return DASH if np.isnan(number) else f"{number:.{places}f}".replace("-", MINUS)


def whole(number: int | float) -> str:
    """Return a count with its thousands set apart, or a dash for what is unknown."""
    return DASH if np.isnan(number) else f"{number:,.0f}"


def p_value(p: float) -> str:
    """Return a p value with three decimals, below a thousandth as < 0.001, or a dash."""
    return "< 0.001" if p < SMALLEST else decimal(p)


def _versions() -> list[tuple[str, str]]:
    installed = {one.metadata["Name"].lower() for one in metadata.distributions()}
    return [(name, metadata.version(name)) for name in PACKAGES if name in installed]

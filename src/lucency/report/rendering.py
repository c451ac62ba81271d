"""Rendering: templates to HTML, figures to SVG and PNG, films to JPEG, numbers to text.

A page needs no other file: style sheet, figures and films stand in it. The same values give the
same bytes. Text in SVG stays text, in the font of the page, and ids carry the name of the figure,
so that several figures share one page.
Letters in shapes: h and w pixels of a picture, sh and sw of what is shown, c colours.
"""

from __future__ import annotations

import base64
import io
import platform
import re
from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib as mpl
import numpy as np
import pandas as pd
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lucency.config.protocol import without_folders
from lucency.core.files import write_whole

FOLDER = Path(__file__).parent
PACKAGES = (
    "lucency", "torch", "torchvision", "timm", "accelerate", "albumentations",
    "opencv-python-headless", "numpy", "pandas", "scipy", "scikit-learn", "matplotlib",
)  # fmt: skip
NOTICE = "For research only, not a medical device."
BESIDE = (r"bias \+[.\d]+", r"[.\d]+ by chance", "no interval")  # the first that a note holds
STANDALONE = '<svg style="background:white;font-family:sans-serif" '
FIRST = 1000  # bytes of a file
DRAWN_BY = ("Software", f"Lucency. {NOTICE}")  # a PNG's text, from its first bytes on
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
NO_NAME = re.compile(r"[^\w.+-]+")  # not allowed in the name of a file
QUALITY = 85  # of JPEG
FINE = 90  # of WebP, whose letters stay sharp
DOTS = 110  # an inch, of a PNG
WIDTH = 9.6  # inches
INK, MUTED, HAIRLINE = "#1d2730", "#5c6873", "#dde4e9"
BEFORE, AFTER = "#a9bac6", "#0072B2"


class Style(NamedTuple):
    """How one network is drawn, in every figure and beside its name."""

    colour: str
    marker: str
    line: str


Styles = Mapping[str, Style]  # by what is drawn


def write_page(file: Path, template: str, /, **values: Any) -> None:
    """Write the HTML page of a template to a file; see `render`."""
    write_whole(file, render(template, **values))


def render(template: str, /, **values: Any) -> str:
    """Return the HTML page of a template; `values` are escaped unless they are Markup."""
    return _jinja().get_template(template).render(versions=_versions(), notice=NOTICE, **values)


def render_chapter(template: str, values: dict[str, Any], chapter: object) -> Markup:
    """Return the macro `chapter` of a template as HTML, called with a chapter's values."""
    module: Any = _jinja().get_template(template).make_module(values)
    return Markup(module.chapter(chapter))


def decimal(number: int | float, places: int = 3) -> str:
    """Return `places` decimals with a true minus sign, or a dash for what is not computable."""
    return DASH if np.isnan(number) else f"{number:z.{places}f}".replace("-", MINUS)


def beside(note: str) -> str:
    """Return what of a metric's note stands below its value: a bias, or why there is no interval.

    >>> beside("mean over 14 of 14 findings; bias +0.022, for positives are few")
    'bias +0.022'
    >>> beside("no interval; a calibrated network has 0.016 by chance"), beside("")
    ('0.016 by chance', '')
    """
    found = (re.search(pattern, note) for pattern in BESIDE)
    return next((one.group() for one in found if one), "")


def fewer(note: str) -> str:
    """Return over how many findings a mean is, by its note, where these are not all.

    >>> fewer("mean over 6 of 14 findings, without Hernia and 7 more"), fewer("mean over 14 of 14")
    ('over 6 of 14', '')
    """
    found = re.match(r"mean over (\d+) of (\d+)", note)
    return f"over {found[1]} of {found[2]}" if found and found[1] != found[2] else ""


def whole(number: int | float) -> str:
    """Return a count with its thousands set apart, or a dash for what is unknown."""
    return DASH if np.isnan(number) else f"{number:,.0f}"


def p_value(p: float) -> str:
    """Return a p value with three decimals, below a thousandth as < 0.001, or a dash."""
    return "< 0.001" if p < 0.001 else decimal(p)


def rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows of a table by the names of its columns."""
    return table.to_dict("records")


def styles_of(names: Sequence[str]) -> dict[str, Style]:
    """Return a style for each name: seven colours, then the same with other marks and lines.

    The colours are those that colour-blind readers tell apart, without the yellow, which is too
    faint on white. Okabe and Ito, *Color Universal Design* (2008).
    """
    rounds = [divmod(number, len(COLOURS)) for number in range(len(names))]
    styles = [Style(COLOURS[hue], *SHAPES[turn % len(SHAPES)]) for turn, hue in rounds]
    return dict(zip(names, styles, strict=True))


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a figure, from the top."""
    axes.set_yticks(range(len(names)), labels=names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def svg(figure: Figure, *, name: str, title: str) -> Markup:
    """Return a figure as SVG with a title for the blind and ids that carry `name`."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(SETTINGS):
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=5)
        _lay_out(figure)
        for one in (figure, *figure.axes):
            one.patch.set_facecolor("none")
        FigureCanvasSVG(figure).print_svg(file, metadata=nothing)
    body = file.getvalue().partition("<svg ")[2]
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    size, end, drawing = body.partition(">")
    size = re.sub(r'(width|height)="[^"]*" ', "", size)
    return Markup(f'<svg role="img" {size}{end}<title>{escape(title)}</title>{drawing}')


def standalone_svg(drawing: str) -> str:
    """Return a figure of `svg` as a file of its own, on a white background."""
    return str(drawing).replace("<svg ", STANDALONE, 1)


def refuse_other_picture(file: Path) -> None:
    """Raise ValueError unless a file is an SVG or a PNG that the program drew, by its beginning."""
    with file.open("rb") as content:
        first = content.read(FIRST)
    if not (first.startswith(STANDALONE.encode()) or "\0".join(DRAWN_BY).encode() in first):
        raise ValueError(f"--figure {file} is there, and is no figure: choose another name")


def png(figure: Figure) -> bytes:
    """Return a figure as a PNG file, on a white background."""
    file, text = io.BytesIO(), PngInfo()
    text.add_text(*DRAWN_BY)
    _drawn(figure).save(file, format="png", pnginfo=text)
    return file.getvalue()


def png_uri(file: bytes) -> str:
    """Return a PNG file as a data URI."""
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def webp_uri(figure: Figure) -> str:
    """Return a figure with films as the data URI of a WebP, an eighth of a PNG's length."""
    file = io.BytesIO()
    _drawn(figure).save(file, format="webp", quality=FINE)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def jpeg_uri(picture: UInt8[np.ndarray, "h w *c"], *, side: int) -> str:
    """Return a picture as the data URI of a JPEG, its longer side at most `side` pixels."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    encoded = cv2.imencode(".jpg", shrink(picture, side=side), quality)[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def shrink(picture: UInt8[np.ndarray, "h w *c"], *, side: int) -> UInt8[np.ndarray, "sh sw *c"]:
    """Return the picture with its longer side at most `side` pixels."""
    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    return cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def _drawn(figure: Figure) -> Image.Image:
    """Return a figure as a picture; `savefig` would go through all of it once more."""
    with mpl.rc_context(SETTINGS):
        _lay_out(figure)
        figure.dpi = DOTS
        figure.patch.set_facecolor("white")
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _lay_out(figure: Figure) -> None:
    """Give everything its place once; matplotlib would do it twice, at the cost of drawing."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


@cache
def _jinja() -> Environment:
    jinja = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.filters |= {"decimal": decimal, "whole": whole, "p_value": p_value, "rows": rows}
    jinja.filters |= {"beside": beside, "fewer": fewer, "without_folders": without_folders}
    return jinja


@cache
def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    installed = {one.metadata["Name"].lower() for one in metadata.distributions()}
    there = [name for name in PACKAGES if name in installed]
    return {"Python": platform.python_version()} | {name: metadata.version(name) for name in there}


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PLAIN = Style(MUTED, "o", ":")  # the trivial predictor
SHAPES = (("o", "-"), ("s", "--"), ("^", "-."), ("D", ":"))
SETTINGS: Any = {  # matplotlib's own names
    "axes.axisbelow": True, "axes.edgecolor": MUTED, "axes.grid": True, "axes.labelcolor": MUTED,
    "axes.labelsize": 9, "axes.linewidth": 0.6, "axes.spines.right": False,
    "axes.spines.top": False, "axes.titlecolor": INK, "axes.titlesize": 9,
    "figure.constrained_layout.use": True, "figure.labelsize": 9, "font.size": 9,
    "grid.color": HAIRLINE, "grid.linewidth": 0.6, "legend.frameon": False,
    "lines.linewidth": 1.6, "lines.markersize": 5, "svg.fonttype": "none",
    "svg.hashsalt": "lucency", "text.color": INK, "text.parse_math": False, "xtick.color": MUTED,
    "xtick.labelsize": 8.5, "ytick.color": INK, "ytick.labelsize": 8.5,
}  # fmt: skip
styled = mpl.rc_context(SETTINGS)  # what is decorated draws with these settings

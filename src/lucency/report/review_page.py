"""Films for review by radiologists: contact sheets, a page with buttons, and an empty form.

The page works offline from disk, stores the answers in the browser, and saves answers.csv.
Letters in shapes: h and w pixels of a film, sh and sw of what is shown.
"""

from __future__ import annotations

import hashlib
import textwrap
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from lucency.audit.agreement import rows_of
from lucency.audit.review import WORDS, empty_form
from lucency.core.files import lent_stream, write_table, write_whole
from lucency.core.manifest import NO_FINDING, Manifest
from lucency.core.written import writing_into
from lucency.report.film_figures import findings_of
from lucency.report.rendering import INK, MUTED, NO_NAME, NOTICE, jpeg_uri, render, shrink

ACROSS = 6  # films of a sheet's row
CELL, GAP, HEAD, CAPTION = 256, 12, 64, 64  # pixels of a contact sheet
TEXT, TITLE, LETTERS = 13, 24, 38  # pixels of writing; letters of a caption's line
LINES = 2  # of labels in a caption
SIDE = 512  # pixels of a film's longer side on the page
Film = UInt8[np.ndarray, "h w"]


def write_review(
    sample: pd.DataFrame, *, films: Mapping[str, Film], manifest: Manifest, folder: Path
) -> None:
    """Write review.html, form.csv, sample.csv and a PNG a sheet into `folder`.

    `sample` as lucency.audit.review draws it; `films` are grey pictures by image name, best as
    published, without contrast enhancement. Raises ValueError where one is missing, and where files
    of others by these names are.
    """
    if lacking := sorted({*sample["image"]} - {*films}):
        raise ValueError(
            f"{len(lacking)} of the films drawn have no picture, such as {lacking[0]!r}; expected "
            "one of each: draw from those at hand"
        )
    sheets = {
        NO_NAME.sub("_", f"sheet-{number:02d}-{sheet}") + ".png": sheet
        for number, sheet in enumerate(sample["sheet"].unique(), start=1)
    }
    with writing_into(folder, ["sample.csv", "review.html", *sheets]):
        write_table(sample, folder / "sample.csv")
        for name, sheet in sheets.items():
            drawn = contact_sheet(sample, sheet=sheet, films=films, manifest=manifest)
            with lent_stream(folder / name) as stream:
                Image.fromarray(drawn).save(stream, "PNG")
        page = review_page(sample, films=films, findings=manifest.findings)
        write_whole(folder / "review.html", page)
    write_table(empty_form(sample), folder / "form.csv")  # last: with a form the review is whole


def contact_sheet(
    sample: pd.DataFrame, *, sheet: str, films: Mapping[str, Film], manifest: Manifest
) -> UInt8[np.ndarray, "sh sw"]:
    """Return a sheet's films in rows of six: place, name and given labels below each."""
    mine = sample.loc[sample["sheet"] == sheet]
    rows = -(-len(mine) // ACROSS)
    width = GAP + ACROSS * (CELL + GAP)
    height = 2 * HEAD + rows * (CELL + CAPTION)
    page = Image.new("L", (width, height), "white")
    pen = ImageDraw.Draw(page)
    title = f"{sheet}: {len(mine)} of {mine['weight'].sum():,.0f} films"
    pen.text((GAP, GAP), title, fill=INK, font=ImageFont.load_default(TITLE))
    pen.text((GAP, height - HEAD / 2), NOTICE, fill=MUTED, font=ImageFont.load_default(TEXT))
    label = manifest.label[rows_of(manifest, mine["image"].to_numpy(dtype=str))]
    for number, row in enumerate(mine.to_dict("records")):
        down, along = divmod(number, ACROSS)
        left, top = GAP + along * (CELL + GAP), HEAD + down * (CELL + CAPTION)
        _paste(page, films[row["image"]], left, top)
        name = textwrap.shorten(f"{row['place']}  {row['image']}", LETTERS, placeholder=" …")
        given = ", ".join(findings_of(label[number], manifest.findings))
        below = textwrap.wrap(given, LETTERS, max_lines=LINES, placeholder=" …")
        at = (left, top + CELL + 4)
        pen.multiline_text(at, name, fill=INK, font=ImageFont.load_default(TEXT))
        under, words = (left, at[1] + TEXT + 4), "\n".join(below)
        pen.multiline_text(under, words, fill=MUTED, font=ImageFont.load_default(TEXT))
    return np.asarray(page)


def review_page(
    sample: pd.DataFrame, *, films: Mapping[str, Film], findings: tuple[str, ...]
) -> str:
    """Return the page on which a reviewer answers for every film of every sheet; see review.js.

    Other labels are hidden, which would bias the reviewer; `findings` may be ticked in addition.
    """
    sheets = []
    for number, (sheet, mine) in enumerate(sample.groupby("sheet", sort=False)):
        finding, shown = mine["finding"].iloc[0], []
        for row in mine.to_dict("records"):
            uri = jpeg_uri(films[row["image"]], side=SIDE)
            shown.append({**row, "key": f"f{number}-{row['place']}", "uri": uri})
        others = [name for name in findings if name != finding]
        nothing = finding == NO_FINDING
        seen = ("nothing seen", "something seen") if nothing else ("seen", "not seen")
        words = dict(zip(WORDS, (*seen, "uncertain"), strict=True))  # of the buttons
        about = {"id": f"s{number}", "title": sheet, "films": shown}
        sheets.append({**about, "others": others, "words": words})
    table = sample.to_csv(index=False)
    return render(
        "review.html.jinja",
        sections=[(one["id"], one["title"]) for one in sheets],
        sheets=sheets,
        total=len(sample),
        fingerprint=hashlib.sha256(table.encode()).hexdigest()[:16],
    )


def _paste(page: Image.Image, film: Film, left: int, top: int) -> None:
    """Put the film in the middle of its black cell."""
    page.paste("black", (left, top, left + CELL, top + CELL))
    small = Image.fromarray(shrink(film, side=CELL))
    page.paste(small, (left + (CELL - small.width) // 2, top + (CELL - small.height) // 2))

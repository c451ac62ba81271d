"""Manifest, preparation, prepared films and their parts: frozen values, validated when built.

The plan is in `core.plan`, predictions are in `core.predictions`. Letters in shapes: n films, k
findings, m chosen films, c copies, h and w pixels.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import hashlib
import html
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, SupportsInt

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8
from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from lucency.core.files import BYTES, write_table, write_whole
from lucency.core.film_shards import SHARDS, FilmShards, open_shards
from lucency.core.memory import says_out_of_memory
from lucency.core.saved_files import ANEW, SavedFields, naming_damage, read_json
from lucency.core.written import (
    read_stage_fields,
    refuse_changed,
    refuse_changed_file,
    refuse_other_shards,
)

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
NO_FINDING = "No Finding"
UNKNOWN_PATIENT = -1  # whose film it is, where that is not known
OLDEST = 120  # years; ages above are mistakes of entry
PARTS = ("train", "val", "test")
APART = "apart"  # in place of a part: of patients whose films no network is shown
Denoiser = Literal["median", "gaussian", "bilateral"]
PATIENT_ID = "patient_id"  # a fact: patients as their label file names them, where not by numbers
SOURCE = "source"  # a fact: which one of several sources a film is of
TEXT_FACTS = (  # which are text, digits too
    PATIENT_ID, SOURCE, "sex", "view", "path", "study", "device", "split", "posture", "method",
    "readers", "nih", "class", "file", "race", "ethnicity",
)  # fmt: skip
FILM_COLUMNS = (  # of tables with a column a finding, which none may be called like
    "image", "patient", "part", "age", "date", "follow_up", "width", "height", "bits", *TEXT_FACTS,
    "film", "called", "possible", "quality", "unfamiliarity", "note", "reason",
)  # fmt: skip
BOX_COLUMNS = ("image", "finding", "x", "y", "w", "h")
UNCERTAIN_COLUMNS = ("image", "finding")
SOFT_COLUMNS = ("image", "finding", "share")
READING_COLUMNS = ("step", "finding", "films")
CELLS = {"uncertain": UNCERTAIN_COLUMNS, "soft": SOFT_COLUMNS, "reading": READING_COLUMNS}
TEXT_OF_CELLS = ("image", "finding", "step")
LIKE, ALIKE = 0.6, 0.4  # of difflib's ratios: a word for another, and one of several for it


class Preparation(BaseModel):
    """How a film becomes the square picture a network sees; a part of every classifier.

    `denoise` is a chain of filters in their order. One name may stand alone, and "none" for an
    empty chain, and such chains are written so, as they were before there were longer ones.
    `bits` is the depth of pictures that have more than eight bits, 0 where it is to be found from
    the films; of prepared films it stands here as found, and is 8 where none had more.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(default=224, ge=16, le=2048)
    order: Literal["clahe-first", "resize-first", "no-clahe"] = "clahe-first"
    clahe_clip: float = Field(default=3.0, gt=0, le=100)
    clahe_tiles: int = Field(default=10, ge=1, le=64)
    brightness: int = Field(default=0, ge=-255, le=255)
    denoise: tuple[Denoiser, ...] = ()
    interpolation: Literal["area", "bicubic"] = "area"
    bits: int = Field(default=0, ge=0, le=16)

    @field_validator("bits")
    @classmethod
    def _eight_bits_at_least(cls, bits: int) -> int:
        if 0 < bits < 8:
            raise ValueError("expected 0 (found from the films) or 8 to 16")
        return bits

    @field_validator("denoise", mode="before")
    @classmethod
    def _a_name_is_a_chain(cls, denoise: Any) -> Any:
        if isinstance(denoise, str):
            return () if denoise == "none" else (denoise,)
        return denoise

    @field_serializer("denoise")
    def _short_chain(self, denoise: tuple[Denoiser, ...]) -> str | list[str]:
        return list(denoise) if len(denoise) > 1 else "".join(denoise) or "none"


def empty_table(columns: Sequence[str]) -> pd.DataFrame:
    """Return a table of these columns without a row."""
    return pd.DataFrame({name: [] for name in columns})


def _of_films(table: pd.DataFrame, image: pd.Series) -> pd.DataFrame:
    """Return the rows of these films."""
    return table.loc[table["image"].isin(image)].reset_index(drop=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """Films and their labels: one row a film; a label is 1, 0 or NaN (not stated).

    `facts` holds one row a film (age in years, sex, view, follow_up, width, height, path, …);
    `boxes` has the columns image, finding, x, y, w, h (left, top, width, height in 0..1 of the
    film). `uncertain` names the cells, image and finding, that the source states as uncertain:
    their label is NaN as long as nothing resolves them. `soft` has a share, 0..1, for cells whose
    training target is not their label, as of readers who disagree. `reading` counts what became of
    the source's films and labels on the way here: step, finding ("" for all), films.
    """

    findings: tuple[str, ...]
    image: Shaped[np.ndarray, " n"]
    patient: Int64[np.ndarray, " n"]
    label: Float32[np.ndarray, "n k"]
    facts: pd.DataFrame
    boxes: pd.DataFrame
    origin: str
    uncertain: pd.DataFrame = field(default_factory=partial(empty_table, UNCERTAIN_COLUMNS))
    soft: pd.DataFrame = field(default_factory=partial(empty_table, SOFT_COLUMNS))
    reading: pd.DataFrame = field(default_factory=partial(empty_table, READING_COLUMNS))

    def __post_init__(self) -> None:
        films, findings = len(self.image), len(self.findings)
        require(len(set(self.findings)) == findings, "a finding is named twice", self.findings)
        require(self.label.shape == (films, findings), "label", self.label.shape)
        require(self.patient.shape == (films,), "patient", self.patient.shape)
        require(len(self.facts) == films, "facts' rows", len(self.facts))
        require(tuple(self.boxes.columns) == BOX_COLUMNS, "box columns", list(self.boxes.columns))
        for name, columns in CELLS.items():
            found = tuple(getattr(self, name).columns)
            require(found == columns, f"columns of {name}", found)
        require_shares(self.soft)
        stated = self.label[~np.isnan(self.label)]
        require(bool(np.isin(stated, (0, 1)).all()), "labels must be 0, 1 or NaN", "others")
        if not pd.Index(self.image).is_unique:
            names, count = np.unique(self.image, return_counts=True)
            raise ValueError(
                f"image {str(names[count > 1][0])!r} is listed {count.max()} times; expected each "
                "film once: remove the repeated rows"
            )

    def __len__(self) -> int:
        return len(self.image)

    def __repr__(self) -> str:
        patients = len(np.unique(self.patient))
        return (
            f"<Manifest: {counted(len(self), 'film')} of {counted(patients, 'patient')}, "
            f"{counted(len(self.findings), 'finding')}>"
        )

    def _repr_html_(self) -> str:
        counts = self.label_counts().rename(columns={"not_stated": "not stated"})
        return f"<p>{html.escape(repr(self)[1:-1])}</p>{counts.to_html()}"

    @property
    def patient_id(self) -> Shaped[np.ndarray, " n"]:
        """The patients as the label file names them, in text or numbers, for people to read."""
        held = self.facts[PATIENT_ID] if PATIENT_ID in self.facts else pd.Series(self.patient)
        return held.to_numpy(dtype=object)

    def label_counts(self) -> pd.DataFrame:
        """Return a row a finding: its labels that are positive, negative and not_stated."""
        counts = {
            "positive": (self.label == 1).sum(axis=0),
            "negative": (self.label == 0).sum(axis=0),
            "not_stated": np.isnan(self.label).sum(axis=0),
        }
        return pd.DataFrame(counts, index=list(self.findings))

    @property
    def targets(self) -> Float32[np.ndarray, "n k"]:
        """The labels, in place of those that `soft` names its shares: what training aims at."""
        row, column = self._cells(self.soft)
        targets = self.label.copy()
        targets[row, column] = self.soft["share"].to_numpy(dtype=np.float32)
        return targets

    @property
    def is_uncertain(self) -> Bool[np.ndarray, "n k"]:
        """Which labels the source states as uncertain."""
        found = np.zeros(self.label.shape, dtype=np.bool_)
        found[self._cells(self.uncertain)] = True
        return found

    def _cells(
        self, table: pd.DataFrame
    ) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
        """Return the rows and columns of the cells that a table names; raises for a strange one."""
        row = pd.Index(self.image).get_indexer(pd.Index(table["image"]))
        column = pd.Index(self.findings).get_indexer(pd.Index(table["finding"]))
        require(bool((row >= 0).all() and (column >= 0).all()), "a cell", "another film or finding")
        return row.astype(np.int64), column.astype(np.int64)

    def take(self, rows: Int64[np.ndarray, " m"]) -> Manifest:
        """Return the films at `rows`, in that order, with their boxes and cells."""
        image = self.image[rows]
        kept = pd.Series(image)
        return replace(
            self,
            image=image,
            patient=self.patient[rows],
            label=self.label[rows],
            facts=self.facts.iloc[rows].reset_index(drop=True),
            boxes=_of_films(self.boxes, kept),
            uncertain=_of_films(self.uncertain, kept),
            soft=_of_films(self.soft, kept),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """Stored copies, none if unset: `pixels` of copy number `copy` of the film at `row`."""

    row: Int64[np.ndarray, " c"] = field(default_factory=lambda: np.empty(0, np.int64))
    copy: Int64[np.ndarray, " c"] = field(default_factory=lambda: np.empty(0, np.int64))
    pixels: UInt8[np.ndarray, "c h w"] | FilmShards = field(
        default_factory=lambda: np.empty((0, 1, 1), np.uint8)
    )

    @cached_property
    def place(self) -> dict[tuple[int, int], int]:
        """The place of each film's copy."""
        pairs = zip(self.row.tolist(), self.copy.tolist(), strict=True)
        return {pair: place for place, pair in enumerate(pairs)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The films as the network sees them: uint8 pixels, memory-mapped, beside their manifest.

    `copies` are those of a plan that were made at the films' native size.
    """

    manifest: Manifest
    preparation: Preparation
    pixels: UInt8[np.ndarray, "n h w"] | FilmShards
    rejected: pd.DataFrame
    copies: Copies = field(default_factory=Copies)

    def __repr__(self) -> str:
        size = self.preparation.size
        lost = f", {len(self.rejected):,} rejected" if len(self.rejected) else ""
        return f"<Prepared: {counted(len(self.manifest), 'film')} of {size} x {size} pixels{lost}>"

    def __post_init__(self) -> None:
        size = self.preparation.size
        require(self.pixels.shape == (len(self.manifest), size, size), "pixels", self.pixels.shape)


def unlabelled(
    names: Sequence[str],
    pixels: UInt8[np.ndarray, "n h w"],
    *,
    findings: tuple[str, ...],
    preparation: Preparation,
    rejected: Sequence[tuple[str, str]] = (),
) -> Prepared:
    """Return named pictures as films without labels; `rejected` are names and reasons."""
    count = len(names)
    manifest = Manifest(
        findings=findings,
        image=np.array(names),
        patient=np.full(count, UNKNOWN_PATIENT),
        label=np.full((count, len(findings)), np.nan, dtype=np.float32),
        facts=pd.DataFrame({"path": names}),
        boxes=empty_boxes(),
        origin=", ".join(names[:3]) + (f" and {count - 3} more" if count > 3 else ""),
    )
    return Prepared(
        manifest=manifest,
        preparation=preparation,
        pixels=pixels,
        rejected=pd.DataFrame(rejected, columns=["image", "reason"]),
    )


def empty_boxes() -> pd.DataFrame:
    """Return a table of no boxes."""
    return empty_table(BOX_COLUMNS)


def cells_where(
    chosen: Bool[np.ndarray, "n k"],
    *,
    image: Shaped[np.ndarray, " n"],
    findings: Sequence[str],
    share: Float32[np.ndarray, "n k"] | None = None,
) -> pd.DataFrame:
    """Return the chosen cells as `Manifest.uncertain` names them; with `share` as `soft` does."""
    row, column = np.nonzero(chosen)
    cells = {"image": image[row], "finding": np.array(findings, dtype=object)[column]}
    if share is not None:
        cells["share"] = share[row, column]
    return pd.DataFrame(cells)


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write manifest.csv, manifest.json and the tables of a manifest.

    manifest.json has the findings, the origin and the names of facts that are text. The tables are
    boxes.csv, uncertain.csv, soft.csv and reading.csv. Raises ValueError for a finding that is
    called like a fact: they have a column each.
    """
    for name in manifest.findings:
        if name in FILM_COLUMNS or name in manifest.facts:
            raise ValueError(
                f"findings: {name!r} is also the name of a column of the films' table: expected "
                f'another name, such as "{name} finding", to which [data.align] maps {name!r}'
            )
    table = pd.DataFrame({"image": manifest.image, "patient": manifest.patient})
    label = pd.DataFrame(manifest.label, columns=list(manifest.findings)).astype("Int8")
    write_table(pd.concat([table, label, manifest.facts], axis=1), folder / "manifest.csv")
    write_table(manifest.boxes, folder / "boxes.csv")
    for name in CELLS:
        write_table(getattr(manifest, name), folder / f"{name}.csv")
    text = [
        name for name, fact in manifest.facts.items() if not pd.api.types.is_numeric_dtype(fact)
    ]
    about = {"findings": manifest.findings, "origin": manifest.origin, "text": text}
    write_whole(folder / "manifest.json", json.dumps(about, indent=1))


class ManifestFields(SavedFields):
    """What manifest.json holds; `text` are the columns of text, absent of before there were any."""

    findings: list[str]
    origin: str
    text: list[str] = Field(default_factory=list)


def load_manifest(folder: Path) -> Manifest:
    """Read what `save_manifest` wrote; ValueError, which names the file, for damage and change."""
    about = read_stage_fields(folder / "manifest.json", ManifestFields)
    findings = tuple(about.findings)
    films = folder / "manifest.csv"
    text = ("image", *TEXT_FACTS, *about.text)
    table = read_table(films, text=text, columns=("image", "patient"))
    if absent := [name for name in findings if name not in table]:
        raise ValueError(f"{films}: no column {absent[0]!r}, which manifest.json names; {ANEW}")
    cells = {
        name: _read_exact(folder / f"{name}.csv", text=TEXT_OF_CELLS, columns=columns)
        for name, columns in CELLS.items()
        if (folder / f"{name}.csv").is_file()  # manifests of before have none
    }
    if "soft" in cells:
        with naming_damage(folder / "soft.csv"):
            require_shares(cells["soft"])
    boxes = _read_exact(folder / "boxes.csv", text=("image", "finding"), columns=BOX_COLUMNS)
    with (
        naming_damage(films, kinds=(ValueError, FloatingPointError)),
        np.errstate(over="raise", invalid="raise"),
    ):
        patient = table["patient"].to_numpy(dtype=np.int64)
        label = table[list(findings)].to_numpy(dtype=np.float32)
    with naming_damage(films), np.errstate(over="ignore"):
        return Manifest(
            findings=findings,
            image=table["image"].to_numpy(dtype=str),
            patient=patient,
            label=label,
            facts=table.drop(columns=["image", "patient", *findings]),
            boxes=boxes,
            origin=about.origin,
            **cells,
        )


def _read_exact(file: Path, *, text: tuple[str, ...], columns: tuple[str, ...]) -> pd.DataFrame:
    """Return a table of these columns and no others."""
    table = read_table(file, text=text, columns=columns)
    with naming_damage(file):
        require(tuple(table.columns) == columns, "columns", tuple(table.columns))
    return table


def name_patients(table: pd.DataFrame, films: Manifest) -> pd.DataFrame:
    """Return a table for people, its column patient as the films' label file names patients."""
    known = dict(zip(films.patient.tolist(), films.patient_id.tolist(), strict=True))
    return table.assign(patient=[known.get(one, one) for one in table["patient"].tolist()])


def save_prepared_tables(prepared: Prepared, folder: Path) -> None:
    """Write everything of `prepared` but its pixels, which are made in place (`film_shards`)."""
    save_manifest(prepared.manifest, folder)
    write_table(prepared.rejected, folder / "rejected.csv")
    write_whole(folder / "preparation.json", prepared.preparation.model_dump_json(indent=1))


def load_prepared(folder: Path) -> Prepared:
    """Read a prepared folder; the pixels stay on disk, mapped read-only."""
    manifest, rejected = load_manifest(folder), ("image", "reason")
    preparation = load_preparation(folder)
    if (folder / SHARDS).is_dir():
        refuse_other_shards(folder)
        pixels = open_shards(folder / SHARDS, image=manifest.image, side=preparation.size)
    else:  # of a run that was made before there were shards
        pixels = np.load(folder / "pixels.npy", mmap_mode="r")
        require_rows(folder / "manifest.csv", len(manifest), expected=len(pixels))
    return Prepared(
        manifest=manifest,
        preparation=preparation,
        pixels=pixels,
        rejected=read_table(folder / "rejected.csv", text=rejected, columns=rejected),
    )


def load_preparation(folder: Path) -> Preparation:
    """Read how a folder's films were prepared; ValueError, which names the file, for damage."""
    file = folder / "preparation.json"
    with naming_damage(file):
        prepared = Preparation.model_validate(read_json(file))
    refuse_changed_file(file)
    return prepared


def read_table(
    file: Path, *, text: tuple[str, ...], columns: tuple[str, ...] = (), remedy: str = ANEW
) -> pd.DataFrame:
    """Read a CSV exactly: text stays as it is, "NA" too; empty is "" in `text`, NaN elsewhere.

    Bytes of file names that are no UTF-8 are read as `write_table` writes them.

    Raises ValueError, with the remedy, for a file that is empty, cut short or no table, without one
    of `columns`, or other than its stage wrote it.
    """
    try:
        content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        heading = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors=BYTES, newline="")
        found = next(csv.reader(heading), [])
        table = pd.read_csv(
            io.BytesIO(content),  # as bytes: a million rows need not be decoded twice
            encoding_errors=BYTES,
            dtype=dict.fromkeys(text, str),
            keep_default_na=False,
            na_values={name: [""] for name in found if name not in text},
        )
    except (csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        if says_out_of_memory(error):
            raise
        why = " ".join(str(error).split())
        raise ValueError(f"{file}: found no table ({why}); {remedy}") from error
    if not content.endswith(b"\n"):
        raise ValueError(
            f"{file}: found a table that is cut short, its last line unended; {remedy}"
        )
    if lacking := [name for name in columns if name not in table]:
        raise ValueError(f"{file}: found a table without the column {lacking[0]!r}; {remedy}")
    refuse_changed(file, content, remedy=remedy)
    return table


def require_rows(file: Path, found: int, *, expected: int) -> None:
    """Raise ValueError unless a table has as many rows as the arrays beside it."""
    if found != expected:
        raise ValueError(f"{file}: found {counted(found, 'row')}, expected {expected:,}; {ANEW}")


def nearest(word: str, known: Iterable[str], *, most: int = 1) -> str:
    """Return the end of an error about an unknown word: the known ones most like it, or nothing.

    Capital letters count as small ones; of names that differ in them alone the last counts. Of
    several, the others may be less alike.

    >>> nearest("mas", ["Mass", "Edema"]), nearest("nodul", ["Nodule", "pseudonodule"], most=3)
    ("; nearest is 'Mass'", "; nearest are 'Nodule', 'pseudonodule'")
    """
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(
        word.casefold(), list(names), n=most, cutoff=LIKE if most == 1 else ALIKE
    )
    shown = ", ".join(repr(names[one]) for one in near)
    return f"; nearest {'is' if len(near) == 1 else 'are'} {shown}" if near else ""


def counted(number: SupportsInt, noun: str, verb: str = "", *, of: SupportsInt = -1) -> str:
    """Return a number with its noun, and its verb where one is given ("is/are"), as they agree.

    `of` is the number of all, where it is one: the noun is theirs.

    >>> counted(1, "film"), counted(1200, "film"), counted(1, "label file", "holds/hold")
    ('1 film', '1,200 films', '1 label file holds')
    >>> counted(1, "film", "is/are", of=5), counted(1, "film", of=1)
    ('1 of 5 films is', '1 of 1 film')
    """
    count, whole = int(number), int(of)
    one, _, several = verb.partition("/")
    members = f"{noun}s" if (count if whole < 0 else whole) != 1 else noun
    words = f"{count:,} {members}" if whole < 0 else f"{count:,} of {whole:,} {members}"
    return f"{words} {one if count == 1 else several}".rstrip()


def listed(names: Sequence[str], *, most: int = 14) -> str:
    """Return names with commas between; of more than `most` the first half of so many.

    >>> listed(["Mass", "Edema"]), listed(list("abcdefgh"), most=6)
    ('Mass, Edema', 'a, b, c and 5 more')
    """
    if len(names) <= most:
        return ", ".join(names)
    shown = names[: most // 2]
    return f"{', '.join(shown)} and {len(names) - len(shown):,} more"


def mean_over(findings: Sequence[str], counts: Sequence[bool] | Bool[np.ndarray, " k"]) -> str:
    """Return over which findings a mean is: those that count, and the others by name.

    >>> mean_over(["Mass", "Edema", "Hernia"], [True, True, False])
    'mean over 2 of 3 findings, without Hernia'
    """
    out = [name for name, counted in zip(findings, counts, strict=True) if not counted]
    kept = len(findings) - len(out)
    without = f", without {listed(out, most=6)}" if out and kept else ""
    return f"mean over {kept} of {len(findings)} findings{without}"


def require(holds: bool, what: str, found: object) -> None:
    """Raise ValueError unless a part of a value fits the rest of it."""
    if not holds:
        raise ValueError(f"{what}: found {found}, which does not fit the rest of the value")


def require_shares(soft: pd.DataFrame) -> None:
    """Raise ValueError unless soft labels are shares of readers, 0 to 1."""
    share = soft["share"].to_numpy(dtype=np.float32)
    require(bool(((share >= 0) & (share <= 1)).all()), "shares must be 0 to 1", "others")


def part_fingerprint(image: Shaped[np.ndarray, " n"], part: Shaped[np.ndarray, " n"]) -> str:
    """Return 16 hexadecimal digits that name this split, whatever the order of the films."""
    pairs = sorted(zip(image.tolist(), part.tolist(), strict=True))
    text = "\n".join(f"{name},{where}" for name, where in pairs)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_part(image: Shaped[np.ndarray, " n"], part: Shaped[np.ndarray, " n"], file: Path) -> None:
    """Write a CSV file with the columns image and part."""
    write_table(pd.DataFrame({"image": image, "part": part}), file)


def load_part(file: Path, image: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Read what `save_part` wrote and return the part of each film, joined by name.

    Raises ValueError when a film is not in the file or twice, or stands neither in one of the three
    parts nor apart.
    """
    text = ("image", "part")
    table = read_table(file, text=text, columns=text).set_index("image")
    part = table["part"].to_numpy(dtype=str)
    if table.index.has_duplicates or not np.isin(part, (*PARTS, APART)).all():
        raise ValueError(f"{file}: expected each film once, its part {', '.join(PARTS)}")
    row = table.index.get_indexer(pd.Index(image))
    if (row < 0).any():
        raise ValueError(
            f"{file}: {counted((row < 0).sum(), 'film', 'is/are')} not in it "
            f"({image[row < 0][0]}, …): split anew"
        )
    return part[row]

"""The Plan: the films of each part, how often each occurs, changed how, its labels and weights.

Letters in shapes: n films, k findings, m entries of a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float32, Int64, Shaped

from lucency.core.files import write_array, write_table
from lucency.core.manifest import PARTS, Manifest, read_table, require, require_rows
from lucency.core.saved_files import naming_damage, read_array
from lucency.core.written import refuse_changed_file

COPY_MARK = "#"  # between the name of a film or of a recipe and the number of the copy
RECIPES = {"exact": "none@1", "gentle": "gentle@1"}  # how a copy differs from its film


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What each part sees: film `row`, as original (copy 0) or copy, its labels and its weight.

    `transform` is empty for an original; else links `name@parameter#copy` joined by `>`, applied
    left to right (a copy of a copy has two). `mix` is the share of film `mate` in the picture, 0
    for all but synthetic films, whose first parent is `row`. `label` is the training target,
    the film's own but where a resampler parts or mixes label sets. `weight` multiplies the loss per
    entry and finding.
    """

    row: Int64[np.ndarray, " m"]
    copy: Int64[np.ndarray, " m"]
    transform: Shaped[np.ndarray, " m"]
    part: Shaped[np.ndarray, " m"]
    label: Float32[np.ndarray, "m k"]
    weight: Float32[np.ndarray, "m k"]
    mate: Int64[np.ndarray, " m"]
    mix: Float32[np.ndarray, " m"]

    def __post_init__(self) -> None:
        lengths = [len(getattr(self, name)) for name in FIELDS]
        require(len(set(lengths)) == 1, ", ".join(FIELDS), lengths)
        require(self.label.shape == self.weight.shape, "label, weight", self.weight.shape)
        strange = self.part[~np.isin(self.part, PARTS)]
        require(not len(strange), "part", np.unique(strange))
        require(bool(((self.copy > 0) == (self.transform != "")).all()), "copy", "transform")
        require_weights(self.weight)
        require(bool(((self.mix >= 0) & (self.mix <= 1)).all()), "mix", "a share outside 0 to 1")
        require(bool((self.copy[self.mix > 0] > 0).all()), "a mixed film must be a copy", "others")

    def __len__(self) -> int:
        return len(self.row)

    def __repr__(self) -> str:
        counts = ", ".join(f"{part} {(self.part == part).sum():,}" for part in PARTS)
        return f"<Plan: {len(self):,} entries ({counts}), {(self.copy > 0).sum():,} copies>"

    def take(self, entries: Shaped[np.ndarray, " e"]) -> Plan:
        """Return the entries given by index or mask."""
        return Plan(**{name: getattr(self, name)[entries] for name in FIELDS})

    def names(self, image: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " m"]:
        """Return a name for every entry: the film's own, or film#copy for a copy."""
        film = image[self.row]
        return np.where(self.copy == 0, film, _link(film, self.copy).astype(str))


FIELDS = tuple(Plan.__dataclass_fields__)


def originals(label: Float32[np.ndarray, "n k"]) -> Plan:
    """Return the plan that shows every training film once, unchanged and unweighted."""
    films = np.arange(len(label))
    return Plan(
        row=films,
        copy=np.zeros(len(films), dtype=np.int64),
        transform=np.full(len(films), ""),
        part=np.full(len(films), "train"),
        label=label,
        weight=np.ones(label.shape, dtype=np.float32),
        mate=films,
        mix=np.zeros(len(films), dtype=np.float32),
    )


def with_targets(plan: Plan, films: Manifest) -> Plan:
    """Return the plan whose training entries aim at the films' soft targets.

    A cell that `films.soft` names gets its share where the entry still has the film's own label;
    those that a resampler has mixed or changed keep theirs, and validation and test films too.
    """
    share = films.targets[plan.row]
    own = films.label[plan.row]
    kept = (plan.label == own) | (np.isnan(plan.label) & np.isnan(own))
    soft = kept & ((plan.part == "train") & (plan.mix == 0))[:, None]
    return replace(plan, label=np.where(soft, share, plan.label))


def only_tests(label: Float32[np.ndarray, "n k"]) -> Plan:
    """Return the plan that shows every film once, as a test film."""
    return replace(originals(label), part=np.full(len(label), "test"))


def clones(
    label: Float32[np.ndarray, "n k"], source: Int64[np.ndarray, " m"], *, copies: str = "exact"
) -> Plan:
    """Return training copies of the films `source` (a film may come several times), no originals.

    `copies` is a key of RECIPES, or a recipe `name@parameter` itself. A film's copies are numbered
    from 1 in the order of `source`.
    """
    made = originals(label).take(source)
    number = _count_up(source)
    recipe = np.full(len(source), RECIPES.get(copies, copies))
    return replace(made, copy=number, transform=_link(recipe, number))


def joined(*plans: Plan) -> Plan:
    """Return the entries of all plans, one after the other."""
    parts = {name: [getattr(plan, name) for plan in plans] for name in FIELDS}
    return Plan(**{name: np.concatenate(part) for name, part in parts.items()})


def followed_by(first: Plan, second: Plan) -> Plan:
    """Return both steps as one plan: the rows of `second` are entries of `first`.

    Copies that `second` makes are numbered on from those of their film in `first`, and a copy of a
    copy goes through both transforms. Raises ValueError when a film would be mixed twice.
    """
    under = first.take(second.row)
    again = (second.mix > 0) & ((under.mix > 0) | (first.mix[second.mate] > 0))
    require(not again.any(), "a film mixed already cannot be mixed again", "some are")
    made = second.copy > 0
    highest = np.zeros(first.row.max(initial=-1) + 1, dtype=np.int64)
    np.maximum.at(highest, first.row, first.copy)
    copy, transform = under.copy.copy(), under.transform.astype(object)
    copy[made] = highest[under.row[made]] + _count_up(under.row[made])
    links = second.transform[made].tolist()
    recipe = np.array([link.rpartition(COPY_MARK)[0] for link in links], dtype=object)
    link, chain = _link(recipe, copy[made]), transform[made]
    transform[made] = np.where(chain == "", link, chain + ">" + link)
    return replace(
        second,
        row=under.row,
        copy=copy,
        transform=transform.astype(str),
        weight=under.weight * second.weight,
        mate=np.where(second.mix > 0, first.row[second.mate], under.mate),
        mix=np.where(second.mix > 0, second.mix, under.mix),
    )


def save_plan(plan: Plan, image: Shaped[np.ndarray, " n"], folder: Path) -> None:
    """Write plan.csv (image, copy, transform, part, mate, mix), label.npy and weight.npy.

    Films go by name.
    """
    table = {"image": image[plan.row], "copy": plan.copy, "transform": plan.transform}
    table |= {"part": plan.part, "mate": image[plan.mate], "mix": plan.mix}
    write_table(pd.DataFrame(table), folder / "plan.csv")
    write_array(plan.label, folder / "label.npy")
    write_array(plan.weight, folder / "weight.npy")


def load_plan(folder: Path, image: Shaped[np.ndarray, " n"]) -> Plan:
    """Read a plan and join it by name to the films `image`.

    Raises ValueError where a file is damaged, or a film of the plan is not among `image`.
    """
    for name in ("label.npy", "weight.npy"):
        refuse_changed_file(folder / name)
    text, label = ("image", "transform", "part", "mate"), read_array(folder / "label.npy")
    table = read_table(folder / "plan.csv", text=text, columns=(*text, "copy", "mix"))
    require_rows(folder / "plan.csv", len(table), expected=len(label))
    films = pd.Index(image)
    row = films.get_indexer(pd.Index(table["image"]))
    mate, mixed = row.copy(), (table["mate"] != table["image"]).to_numpy()
    mate[mixed] = films.get_indexer(pd.Index(table.loc[mixed, "mate"]))
    with naming_damage(folder / "plan.csv"):
        known = bool((row >= 0).all() and (mate >= 0).all())
        require(known, "films of the plan", "one that is not in the manifest")
    weight = read_array(folder / "weight.npy")
    with naming_damage(folder / "weight.npy", kinds=(ValueError, TypeError)):
        require_weights(weight)
    with naming_damage(folder / "plan.csv"):
        return Plan(
            row=row.astype(np.int64),
            copy=table["copy"].to_numpy(dtype=np.int64),
            transform=table["transform"].to_numpy(dtype=str),
            part=table["part"].to_numpy(dtype=str),
            label=label,
            weight=weight,
            mate=mate.astype(np.int64),
            mix=table["mix"].to_numpy(dtype=np.float32),
        )


def require_weights(weight: Shaped[np.ndarray, ...]) -> None:
    """Raise ValueError unless no weight is negative."""
    require(bool((weight >= 0).all()), "weights must not be negative", "some are")


def _count_up(film: Int64[np.ndarray, " m"]) -> Int64[np.ndarray, " m"]:
    """Return for each place how many times its film has come so far, itself included."""
    return pd.Series(film).groupby(film).cumcount().to_numpy(dtype=np.int64) + 1


def _link(name: np.ndarray, number: np.ndarray) -> np.ndarray:
    pairs = zip(name.tolist(), number.tolist(), strict=True)
    return np.array([f"{name}{COPY_MARK}{copy}" for name, copy in pairs], dtype=object)

"""What is fitted is kept in two files, and damaged ones are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lucency.core.manifest import Preparation
from lucency.core.saved_files import read_json
from lucency.ensemble.fitted import (
    ARRAYS,
    DATA,
    NEEDED,
    RULES,
    FittedPredictor,
    Rule,
    keeps_films,
    load_predictor,
    save_predictor,
)
from lucency.evaluation.calibration import no_recalibration

BLEND = {"method": "mean-logit", "space": "logit"}
WEIGHT = {"weight": np.full((2, 1), 0.5), "known": np.empty((0, 0, 0))}
WHOLE = {
    "views": ({"recipe": "gentle", "seed": 0, "views": 2}, {}),
    "blend": (BLEND, WEIGHT),
    "stack": ({}, dict.fromkeys(("middle", "scale", "coefficient", "intercept"), np.zeros(1))),
    "learner": (
        {"form": ["linear"]},
        dict.fromkeys(("axes.mean", "line.slope", "line.offset"), np.ones(1)),
    ),
    "neighbours": (
        {"neighbours": 3},
        dict.fromkeys(("label", "patient", "direction"), np.zeros((4, 1))),
    ),
}


def predictor(rule: Rule) -> FittedPredictor:
    return FittedPredictor(
        name="mean-logit",
        kind="ensemble",
        findings=("Mass",),
        preparation=Preparation(size=64),
        split="0123456789abcdef",
        recalibration=no_recalibration(1),
        threshold=np.full(1, 0.5),
        validation_auc=0.75,
        rule=rule,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_predictor(predictor(Rule(name="blend", about=BLEND, arrays=WEIGHT)), tmp_path)
    return tmp_path


def test_every_rule_names_what_it_needs():
    assert NEEDED.keys() == RULES.keys() == WHOLE.keys()


@pytest.mark.parametrize("name", RULES)
def test_what_is_saved_is_read(name: str, tmp_path: Path):
    about, arrays = WHOLE[name]
    made = predictor(Rule(name=name, members=("a", "b"), about=about, arrays=arrays))
    save_predictor(made, tmp_path)
    read = load_predictor(tmp_path)
    assert (read.rule.name, read.rule.members, read.rule.about) == (name, ("a", "b"), about)
    assert read.rule.arrays.keys() == arrays.keys()
    assert (read.findings, read.preparation) == (made.findings, made.preparation)
    for key in NEEDED[name]:
        less = {part: {k: v for k, v in held.items() if k != key}
                for part, held in (("about", about), ("arrays", arrays))}  # fmt: skip
        save_predictor(predictor(Rule(name=name, **less)), tmp_path)
        with pytest.raises(ValueError, match=rf"'{key}' is absent\); expected what a run"):
            load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda plain: {"version": 1}, "'name' is absent"),
        (lambda plain: [], "found a list, expected an object"),
        (lambda plain: {}, "is of another version: expected version 1"),
        (lambda plain: {**plain, "version": 2}, "is of another version"),
        (lambda plain: {**plain, "rule": {**plain["rule"], "name": "vote"}}, "rule 'vote', exp"),
        (lambda plain: {**plain, "rule": "blend"}, "cannot be read"),
        (lambda plain: {**plain, "recalibration": None}, "cannot be read"),
        (lambda plain: {**plain, "threshold": {}}, "cannot be read"),
        (lambda plain: {**plain, "more": 1}, "more"),
        (lambda plain: {k: v for k, v in plain.items() if k != "findings"}, "'findings' is absent"),
        (lambda plain: {k: v for k, v in plain.items() if k != "kind"}, "kind"),
    ],
)
def test_damaged_files_are_refused(
    folder: Path, spoil: Callable[[dict[str, Any]], object], message: str
):
    file = folder / DATA
    file.write_text(json.dumps(spoil(read_json(file))))
    with pytest.raises(ValueError, match=message) as refused:
        load_predictor(folder)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize("file", [DATA, ARRAYS])
def test_absent_and_broken_files_are_refused(folder: Path, file: str):
    (folder / file).write_bytes(b"no file")
    with pytest.raises(ValueError, match="cannot be read"):
        load_predictor(folder)
    (folder / file).unlink()
    with pytest.raises(ValueError, match=rf"{file} cannot be read \(there is none"):
        load_predictor(folder)


def test_rules_that_keep_films_are_known():
    assert keeps_films(Rule(name="neighbours", about={"neighbours": 3}))
    assert keeps_films(Rule(name="learner", about={"form": ["", "neighbours"]}))
    assert keeps_films(Rule(name="learner", about={"form": ["kernel"]}))
    assert not keeps_films(Rule(name="learner", about={"form": ["linear", "forest"]}))
    assert not keeps_films(Rule(name="blend", about=BLEND))

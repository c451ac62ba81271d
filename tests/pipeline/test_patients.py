"""Patients are shown as their label file names them, and compared whatever way they are written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lucency as lu
from lucency.audit.checks.run_checks import check_lists
from lucency.audit.label_audit import audit_label_errors
from lucency.core.manifest import NO_FINDING, Prepared
from lucency.data.labels import read_nih
from lucency.ensemble.retrieval import NOBODY
from lucency.pipeline.export import _entries
from lucency.pipeline.similar_films import Resemblance, answer, in_words
from toys import toy_films, toy_plan


def named(count: int = 8) -> Prepared:
    films = toy_films(count)
    facts = films.manifest.facts.assign(patient_id=[f"MRN-{n // 2}" for n in range(count)])
    return replace(films, manifest=replace(films.manifest, facts=facts))


def test_similar_films_name_patients_as_written():
    films = named()
    found = Resemblance(
        network="net",
        patients="others",
        queries=films,
        known=films,
        row=np.full((8, 1), 4),
        similarity=np.full((8, 1), 0.5, dtype=np.float32),
        share=np.zeros((8, 2)),
        left_out=np.array([0] * 7 + [NOBODY]),
    )
    first = answer(found)["000.png"]
    assert isinstance(first, dict)
    assert (first["left_out"], first["similar"][0]["patient"]) == ("MRN-0", "MRN-2")
    assert "films of other patients than MRN-0" in in_words(found)
    assert "patient MRN-2" in in_words(found)


def test_an_export_names_patients_as_written_and_is_read_again(tmp_path: Path):
    films = named()
    plan = toy_plan(films)
    table = _entries(films, plan, films.manifest.image)
    table["Finding Labels"] = NO_FINDING
    table.to_csv(tmp_path / "Data_Entry_2017_v2020.csv", index=False)
    assert read_nih(tmp_path).patient_id.tolist() == films.manifest.facts["patient_id"].tolist()


def test_label_errors_and_leaks_name_patients_as_written(tmp_path: Path):
    image = [f"{n:02d}.png" for n in range(40)]
    label = np.arange(40) % 2
    table = pd.DataFrame({"image": image, "patient": [f"P{n // 4}x" for n in range(40)]})
    table.assign(Mass=label).to_csv(tmp_path / "labels.csv", index=False)
    score = np.clip(0.2 + 0.6 * label + 0.01 * np.arange(40), 0.01, 0.99)
    pd.DataFrame({"image": image, "Mass": score}).to_csv(tmp_path / "scores.csv", index=False)
    labels = tmp_path / "labels.csv"
    found = audit_label_errors(
        tmp_path / "scores.csv", labels=labels, expert=None, scale="probability", top=3
    )
    for name in ("first", "films", "errors"):
        assert set(found.tables[name]["patient"]) <= set(table["patient"])
    lists = {"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"}
    lists["train"].write_text("\n".join(image[:22]))
    lists["test"].write_text("\n".join(image[22:]))
    leak = next(i for i in check_lists(lists, labels=labels) if i.check == "patients_on_two_sides")
    assert leak.examples == ("patient P5x",)


def test_arrays_of_patients_are_cleaned_and_ways_of_writing_refused():
    y, prob = [0, 1, 0, 1], [0.1, 0.7, 0.6, 0.9]
    found = lu.evaluate(y, prob, patient=["a", "a ", "b", "b"])
    assert set(found["patients"]) == {2}
    with pytest.raises(ValueError, match="patient: found patients 'a' and 'A'"):
        lu.evaluate(y, prob, patient=["a", "A", "b", "b"])

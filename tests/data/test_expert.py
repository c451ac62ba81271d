"""Google's releases: the published counts, the panel's majority in every cell."""

from pathlib import Path

import numpy as np
import pytest

from expert_labels import read_experts
from lucency.core.manifest import FINDINGS
from lucency.data.radiologists import FOUR_FINDINGS, read_expert_table, read_readings

PANEL = (4343882785, 4343883593, 4343883996)  # readers whose majority is the published label


def test_all_findings_are_810_films_of_532_patients(shared: Path):
    experts = read_experts(shared / "nih" / "expert", release="all")
    assert experts.findings == FINDINGS
    assert (len(experts), len(np.unique(experts.patient))) == (810, 532)
    assert experts.facts["abnormal"].sum() == 578
    assert not np.isnan(experts.label).any()
    number = [int(name[:8]) for name in experts.image]
    np.testing.assert_array_equal(experts.patient, number)


def test_the_panel_s_majority_is_the_published_label_in_every_cell(shared: Path):
    root = shared / "nih" / "expert"
    readings, published = read_readings(root, release="all"), read_experts(root, release="all")
    assert len(readings) == 5 * 810
    assert not np.isnan(readings.label).any()
    order = np.argsort(published.image)
    panel = np.isin(readings.reader, PANEL)
    for chosen, agrees in ((panel, True), (np.full(len(readings), True), False)):
        image, film = np.unique(readings.image[chosen], return_inverse=True)
        yes = np.stack([np.bincount(film, weights=one) for one in readings.label[chosen].T], axis=1)
        majority = 2 * yes > np.bincount(film)[:, np.newaxis]
        np.testing.assert_array_equal(image, published.image[order])
        assert (majority == published.label[order]).all() == agrees


def test_four_findings_are_test_then_validation(shared: Path):
    root = shared / "nih" / "expert"
    experts = read_experts(root, release="four")
    assert experts.findings == FOUR_FINDINGS
    assert experts.facts["part"].tolist() == ["test"] * 1_962 + ["val"] * 2_414
    assert experts.label.sum(axis=0).tolist() == [186, 238, 2_166, 605]
    readings = read_readings(root, release="four")
    assert len(readings) == 13_081
    hedged = np.isnan(readings.label).sum(axis=0)
    assert hedged.tolist() == [0, 165, 0, 261]
    assert len(np.unique(readings.image)) == len(experts)


def write(folder: Path, rows: str) -> Path:
    head = "Patient ID,Image ID,Reader ID,Fracture,Pneumothorax,Airspace opacity,Nodule/mass,Set ID"
    file = folder / "four_findings_expert_labels_individual_readers.csv"
    file.write_text(f"{head}\n{rows}")
    return folder


def test_what_does_not_fit_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no such file; expected a table of Google's"):
        read_expert_table(tmp_path / "all.csv")
    folder = write(tmp_path, "7,a.png,1,NO,YES,MAYBE,NO,test\n")
    with pytest.raises(ValueError, match="line 2, Airspace opacity: found 'MAYBE', expected YES"):
        read_readings(folder, release="four")
    file = tmp_path / "all_findings_expert_labels_test_labels.csv"
    file.write_text("Image ID,Patient ID,Mass\na.png,7,YES\n")
    with pytest.raises(ValueError, match="columns Image ID, Patient ID, Mass; expected 'Atelec"):
        read_expert_table(file)

"""Real labels, predictions and readings of ChestX-ray14, read once for all tests of the audit."""

from pathlib import Path

import pytest

from expert_labels import read_experts
from lucency.core.manifest import Manifest
from lucency.core.predictions import Predictions
from lucency.data.labels import read_labelled
from lucency.evaluation.external import read_predictions_table


@pytest.fixture(scope="session")
def nih(shared: Path) -> Manifest:
    return read_labelled(shared / "nih" / "Data_Entry_2017_v2020.csv")


@pytest.fixture(scope="session")
def first_nih(shared: Path) -> Manifest:
    """The label file of 2017."""
    return read_labelled(shared / "nih" / "Data_Entry_2017.csv")


@pytest.fixture(scope="session")
def zech(nih: Manifest, shared: Path) -> Predictions:
    """John Zech's predictions (reproduce-chexnet) with the labels of v2020."""
    file = shared / "nih" / "zech" / "preds.csv"
    return read_predictions_table(file, films=nih, scale="probability", part="test")


@pytest.fixture(scope="session")
def experts(shared: Path) -> Manifest:
    """The majority of radiologists, on 810 films for all findings."""
    return read_experts(shared / "nih" / "expert", release="all")


@pytest.fixture(scope="session")
def four(shared: Path) -> Manifest:
    """The radiologists' labels of the four-finding release."""
    return read_experts(shared / "nih" / "expert", release="four")

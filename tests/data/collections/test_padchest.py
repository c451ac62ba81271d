"""PadChest: names exactly, what is not stated, facts; every count of the real label file."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layouts_other import PADCHEST_FILE, PATIENT_OF_PADCHEST, oracle_labels, padchest
from lucency.config.sections import Source
from lucency.core.manifest import FINDINGS, Manifest
from lucency.data.collections.padchest import FINDINGS_OF_PADCHEST, PADCHEST
from lucency.data.label_choices import choose_labels
from lucency.data.sources import read_films

FOURTEEN = (*FINDINGS, "No Finding")
MAP = {  # facts of PadChest's file: films, of them frontal, of them read by physicians
    "Atelectasis": (8_961, 6_168, 2_279), "Cardiomegaly": (15_022, 9_848, 3_746),
    "Effusion": (10_021, 7_042, 1_800), "Infiltration": (7_089, 4_605, 1_456),
    "Mass": (1_083, 632, 264), "Nodule": (4_072, 2_549, 830), "Pneumonia": (8_174, 5_223, 1_826),
    "Pneumothorax": (573, 416, 115), "Consolidation": (2_636, 1_766, 394),
    "Edema": (1_456, 1_299, 87), "Emphysema": (1_538, 933, 376), "Fibrosis": (1_228, 716, 166),
    "Pleural_Thickening": (5_156, 3_373, 1_827), "Hernia": (2_363, 1_609, 608),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return padchest(tmp_path_factory.mktemp("padchest") / "films")


@pytest.fixture(scope="module")
def films(root: Path) -> Manifest:
    return PADCHEST.read(root, "")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = oracle_labels(f"{PADCHEST_FILE}.gz", root=tmp_path_factory.mktemp("real") / "padchest")
    return PADCHEST.read(folder, "")


def aligned(films: Manifest, **choices: object) -> Manifest:
    source = Source.model_validate({"source": "padchest", **choices})
    return choose_labels(films, source=source, findings=FOURTEEN, collection=PADCHEST)


def carried(films: Manifest, row: int) -> list[str]:
    return [n for n, one in zip(films.findings, films.label[row] == 1, strict=True) if one]


def test_names_are_read_without_blanks_and_matched_exactly(films: Manifest):
    assert films.image[:3].tolist() == ["0/film_0.png", "1/film_1.png", "2/film_2.png"]
    assert carried(films, 0) == ["cardiomegaly", "pleural effusion"]
    ours = aligned(films)
    assert carried(ours, 0) == ["Cardiomegaly", "Effusion"]
    assert carried(ours, 2) == []  # pseudonodule and subcutaneous emphysema
    assert carried(ours, 3) == ["Effusion", "Pneumothorax"]  # hydropneumothorax is both


def test_what_a_report_does_not_state_is_not_negative(films: Manifest):
    unknown = np.isnan(aligned(films).label).all(axis=1)
    assert np.flatnonzero(unknown).tolist() == [4, 5, 6, 7, 9]
    assert carried(films, 4) == ["unchanged"]
    assert not np.isnan(films.label[[0, 1, 2, 3, 8]]).any()
    assert dict(zip(films.reading["step"], films.reading["films"], strict=True)) == {
        "not stated: no name at all": 2,
        "not stated: unchanged alone": 1,
        "not stated: exclude alone": 1,
        "not stated: several of unchanged, exclude, suboptimal study": 1,
        "contradiction: beside other names": 1,
        "age: impossible": 1,
    }


def test_facts_are_those_of_the_table(films: Manifest):
    facts = films.facts
    assert facts["view"].tolist() == [
        "PA", "LATERAL", "AP", "AP", "PA", "", "COSTAL", "EXCLUDE", "PA", "PA",
    ]  # fmt: skip
    assert np.flatnonzero(facts["posture"] == "supine").tolist() == [3]
    assert facts["age"][[0, 2]].tolist() == [84, 64]  # the study's year, not 2017
    assert facts["age"].isna().to_numpy().nonzero()[0].tolist() == [3, 4]
    assert facts["sex"].tolist() == ["F", "F", "M", "", "", "M", "M", "F", "F", "M"]
    assert (facts["date"] == 20140915).all()
    assert (facts["bits"] == 12).all()
    assert facts["method"].tolist()[:2] == ["physician", "RNN"]
    assert films.patient[0] == films.patient[1] != films.patient[2]
    assert films.patient_id[0] == PATIENT_OF_PADCHEST.format(1)


def test_patients_of_both_methods_are_reported(root: Path, capsys: pytest.CaptureFixture[str]):
    PADCHEST.read(root, "")
    assert "1 patient has films whose reports a physician read" in capsys.readouterr().err


def test_films_are_found_below_the_root_and_facts_survive(root: Path, tmp_path: Path):
    source = Source(source="padchest", root=str(root))
    found = read_films(source, findings=FOURTEEN, out=tmp_path / "manifest")
    assert len(found) == 10
    assert Path(found.facts["path"][3]) == root / "0" / "film_3.png"
    assert found.facts["study"][1] == "20536686640136348236148679891455881"
    assert found.facts["posture"].tolist()[2:4] == ["", "supine"]
    assert "contradiction: beside other names" in found.reading["step"].tolist()
    assert "not as published (films 10, not 160,861; patients 9, not 67,625" in found.origin


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("'nodule'", "'nodul'"), "line 10, Labels: found 'nodul'"),
        (lambda text: text.replace("['normal']", "normal"), "line 3, Labels: found 'normal'"),
        (lambda text: text.replace("['normal']", "[1]"), "expected a list such as"),
        (lambda text: text.replace("['normal']", "[" * 5_000), "expected a list such as"),
        (lambda text: text.replace("20140915", "2014-09-15"), "expected a date such as 20140915"),
        (lambda text: text.replace("RNN_model", "GPT"), "expected Physician or RNN_model"),
        (lambda text: text.replace("Projection", "View"), "no column 'Projection'"),
        (lambda text: text[: text.rindex(",Physician")], "cut short"),
        (lambda text: text.split("\n")[0] + "\n", "found no rows"),
    ],
)
def test_another_label_file_is_refused(
    root: Path, tmp_path: Path, change: Callable[[str], str], message: str
):
    (tmp_path / PADCHEST_FILE).write_text(change((root / PADCHEST_FILE).read_text()))
    with pytest.raises(ValueError, match=message) as caught:
        PADCHEST.read(tmp_path, "")
    assert "\n" not in str(caught.value)


def test_a_root_of_something_else_and_half_a_download_are_refused(tmp_path: Path):
    (tmp_path / "train.csv").write_text("Path,Sex\n")
    with pytest.raises(ValueError, match=r"of PadChest in .*found train\.csv"):
        PADCHEST.read(tmp_path, "")
    with pytest.raises(ValueError, match="no such file"):
        PADCHEST.read(tmp_path, "labels.csv")
    (tmp_path / f"{PADCHEST_FILE}.gz").write_bytes(b"\x1f\x8b\x08\x00" + b"\x00" * 20)
    with pytest.raises(ValueError, match="found no whole table"):
        PADCHEST.read(tmp_path, "")


def test_an_unknown_projection_is_no_view_and_counted(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    table = pd.read_csv(root / PADCHEST_FILE, dtype=str, keep_default_na=False)
    table.loc[:2, "Projection"] = ["OBLIQUE", "pa", ""]
    table.to_csv(tmp_path / PADCHEST_FILE, index=False)
    films = PADCHEST.read(tmp_path, "")
    assert films.facts["view"].tolist()[:4] == ["", "", "", "AP"]
    steps = dict(zip(films.reading["step"], films.reading["films"], strict=True))
    assert steps["view: an unknown Projection"] == 2
    said = capsys.readouterr().err
    assert "2 of 10 films have an unknown Projection (OBLIQUE, pa): no view" in said


def test_two_label_files_in_one_root_are_named(root: Path, tmp_path: Path):
    text = (root / PADCHEST_FILE).read_text()
    other = PADCHEST_FILE.replace("01.02.19", "mine")
    for name in (PADCHEST_FILE, other):
        (tmp_path / name).write_text(text)
    message = rf"found {PADCHEST_FILE}, {other}, label files of PadChest.*data\.labels = "
    with pytest.raises(ValueError, match=message):
        PADCHEST.read(tmp_path, "")
    assert PADCHEST.read(tmp_path, other).origin.startswith(f"{other}: PadChest")
    (tmp_path / f"{other}.gz").write_bytes(gzip.compress((tmp_path / other).read_bytes()))
    (tmp_path / other).unlink()
    with pytest.raises(ValueError, match=rf"found {PADCHEST_FILE}, {other}\.gz, label files"):
        PADCHEST.read(tmp_path, "")
    (tmp_path / f"{other}.gz").unlink()
    (tmp_path / f"{PADCHEST_FILE}.gz").write_bytes(gzip.compress(text.encode()))
    assert PADCHEST.read(tmp_path, "").origin.startswith(f"{PADCHEST_FILE}: ")  # one, twice there


@pytest.mark.slow
def test_the_real_file_is_as_published(real: Manifest):
    assert real.origin == (
        f"{PADCHEST_FILE}.gz: PadChest, as published, 160,861 films of 67,625 patients"
    )
    assert real.facts["study"].nunique() == 109_931
    assert (real.label == 1).any(axis=0).all()
    assert len(FINDINGS_OF_PADCHEST) == 193
    assert len({name.partition("/")[0] for name in real.image}) == 52
    assert sum(count >= 1_000 for count in real.label_counts()["positive"]) == 61


@pytest.mark.slow
def test_the_real_map_has_the_counts_of_exact_names(real: Manifest):
    ours = aligned(real)
    frontal = ours.facts["view"].isin(["PA", "AP"]).to_numpy()
    physician = (ours.facts["method"] == "physician").to_numpy()
    one = pd.DataFrame(ours.label == 1, columns=list(ours.findings))
    counts = [one.sum(), one[frontal].sum(), one[physician].sum()]
    assert {name: tuple(int(c[name]) for c in counts) for name in FINDINGS} == MAP
    assert int(one["No Finding"].sum()) == 50_616
    names = pd.DataFrame(real.label == 1, columns=list(real.findings))
    added = {  # by names that merely contain a finding's: here they add nothing
        "Effusion": ("pericardial effusion", 40), "Nodule": ("pseudonodule", 2_163),
        "Emphysema": ("subcutaneous emphysema", 206),
    }  # fmt: skip
    found = {ours: int((names[name] & ~one[ours]).sum()) for ours, (name, _) in added.items()}
    assert found == {ours: films for ours, (_, films) in added.items()}
    assert int(names["chest drain tube"].sum()) == 621


@pytest.mark.slow
def test_the_real_file_has_films_of_which_nothing_is_stated(real: Manifest):
    steps = dict(zip(real.reading["step"], real.reading["films"], strict=True))
    assert steps == {
        "not stated: no name at all": 880,  # 777 lists of '', 103 empty cells
        "not stated: unchanged alone": 3_705,
        "not stated: exclude alone": 1_284,
        "not stated: suboptimal study alone": 412,
        "not stated: several of unchanged, exclude, suboptimal study": 21,
        "contradiction: beside other names": 226,
    }
    unknown = np.isnan(real.label).any(axis=1)
    assert unknown.sum() == 5_422 + 880
    frontal = real.facts["view"].isin(["PA", "AP"]).to_numpy()
    assert frontal.sum() == 91_728 + 14_346 + 4_559
    assert (frontal & ~unknown).sum() == 106_171
    assert len(np.unique(real.patient[frontal & ~unknown])) == 65_818


@pytest.mark.slow
def test_the_real_facts_have_their_counts(real: Manifest):
    facts = real.facts
    assert facts["view"].value_counts().to_dict() == {
        "PA": 91_728, "LATERAL": 49_579, "AP": 14_346 + 4_559, "COSTAL": 630, "EXCLUDE": 11, "": 8,
    }  # fmt: skip
    assert (facts["posture"] == "supine").sum() == 14_346
    assert facts["sex"].value_counts().to_dict() == {"M": 80_920, "F": 79_919, "": 22}
    assert facts["method"].value_counts().to_dict() == {"RNN": 121_808, "physician": 39_053}
    assert facts["bits"].value_counts().to_dict() == {12: 144_051, 10: 16_810}
    assert (facts["age"].min(), facts["age"].max(), facts["age"].isna().sum()) == (0, 105, 6)
    assert (facts["date"].min(), facts["date"].max()) == (20070503, 20171117)
    both = facts.groupby(real.patient)["method"].nunique()
    assert (both > 1).sum() == 7_799

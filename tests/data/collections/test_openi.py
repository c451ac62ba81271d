"""OpenI: headings exactly, what is not stated, views, safe XML; every count of the real reports."""

import os
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layouts_other import OPENI_REPORTS, openi, openi_report, oracle_labels
from lucency.config.sections import Source
from lucency.core.manifest import FINDINGS, Manifest
from lucency.data.collections.openi import OPENI, plain_heading, read_reports
from lucency.data.label_choices import choose_labels
from lucency.data.sources import film_inputs, read_films

REPORTS = "NLMCXR_reports.tgz"
TABLES = ("nlmcxr_tsne_pa.csv.gz", "nlmcxr_dicom_metadata.csv.gz")
HEADINGS = {  # how often, and in how many reports, a major heading stands
    "normal": (1_391, 1_391), "Opacity": (536, 455), "Cardiomegaly": (375, 375),
    "Pulmonary Atelectasis": (347, 332), "Calcified Granuloma": (284, 274),
    "Pleural Effusion": (172, 161), "Airspace Disease": (132, 125), "Nodule": (121, 111),
    "No Indexing": (95, 95), "Technical Quality of Image Unsatisfactory": (86, 86),
    "Infiltrate": (68, 65), "Emphysema": (62, 62), "Pulmonary Emphysema": (36, 36),
    "Thickening": (57, 56), "Hernia, Hiatal": (48, 48), "Pulmonary Edema": (47, 46),
    "Pneumonia": (43, 42), "Consolidation": (33, 30), "Pneumothorax": (23, 23),
    "Pulmonary Fibrosis": (19, 19), "Mass": (18, 17),
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openi(tmp_path_factory.mktemp("openi") / "films", archive=True)


@pytest.fixture(scope="module")
def films(root: Path) -> Manifest:
    return OPENI.read(root, "")


@pytest.fixture(scope="module")
def real_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return oracle_labels(REPORTS, *TABLES, root=tmp_path_factory.mktemp("real") / "openi")


@pytest.fixture(scope="module")
def real(real_root: Path) -> Manifest:
    return OPENI.read(real_root, "")


def aligned(films: Manifest) -> Manifest:
    findings = (*FINDINGS, "No Finding")
    return choose_labels(films, source=Source(source="openi"), findings=findings, collection=OPENI)


def carried(films: Manifest, row: int) -> list[str]:
    return [n for n, one in zip(films.findings, films.label[row] == 1, strict=True) if one]


def test_headings_count_by_their_first_part_for_all_films_of_a_report(films: Manifest):
    ours = aligned(films)
    assert films.image[:2].tolist() == list(OPENI_REPORTS[1][1])
    assert carried(ours, 0) == carried(ours, 1) == ["No Finding"]
    assert carried(ours, 2) == ["Cardiomegaly", "Pleural_Thickening"]
    assert carried(ours, 3) == ["Atelectasis"]  # Thickening of something else, no automatic terms
    assert carried(films, 3) == ["Pulmonary Atelectasis", "Thickening"]
    assert films.patient.tolist() == [1, 1, 2, 3, 4, 5]


def test_a_report_without_indexing_states_no_absence(films: Manifest):
    ours = aligned(films)
    assert np.isnan(ours.label[4]).all()
    assert carried(ours, 5) == ["Effusion"]  # named in spite of poor quality
    assert np.isnan(ours.label[5]).sum() == 14
    steps = dict(zip(films.reading["step"], films.reading["films"], strict=True))
    assert steps == {
        "reports without a film": 1,
        "not stated: No Indexing or Technical Quality of Image Unsatisfactory": 2,
    }


def test_normal_beside_poor_quality_makes_no_zeros(tmp_path: Path):
    file = openi(tmp_path) / "ecgen-radiology" / "5.xml"
    file.write_text(file.read_text().replace("Pleural Effusion/left", "normal"))
    assert np.isnan(aligned(OPENI.read(tmp_path, "")).label[5]).all()


def test_an_archive_and_a_folder_hold_the_same(root: Path, films: Manifest, tmp_path: Path):
    folder = OPENI.read(openi(tmp_path), "")
    assert folder.image.tolist() == films.image.tolist()
    assert np.array_equal(folder.label, films.label, equal_nan=True)
    named = OPENI.read(tmp_path, "ecgen-radiology")
    assert len(named) == 6


def test_films_are_found_as_png(root: Path, tmp_path: Path):
    source = Source(source="openi", root=str(root))
    found = read_films(source, findings=("Cardiomegaly",), out=tmp_path / "manifest")
    assert len(found) == 6
    assert Path(found.facts["path"][5]) == root / "CXR5_IM-2117-1003002.png"


def test_films_of_the_dicom_archive_are_called_otherwise(tmp_path: Path):
    films = OPENI.read(openi(tmp_path, dicom=True), "")
    assert films.image[[0, 2]].tolist() == ["1_IM-0001-3001", "2_IM-0652-1001"]
    for name, number in zip(films.image, films.patient, strict=True):
        assert (tmp_path / str(number) / f"{name}.dcm").is_file()


def test_views_are_judged_from_the_picture_before_the_header(tmp_path: Path):
    openi(tmp_path)
    films = [film for _, of_report in OPENI_REPORTS.values() for film in of_report]
    judged = pd.DataFrame({"imageid": films[:2], "tsne-view": ["PA", "L"]})
    judged.to_csv(tmp_path / TABLES[0].removesuffix(".gz"), index=False)
    header = pd.DataFrame({"imageid": films[1:4], "View Position": ["PA", "AP", ""]})
    header.to_csv(tmp_path / TABLES[1].removesuffix(".gz"), index=False)
    read = OPENI.read(tmp_path, "")
    assert read.facts["view"].tolist() == ["PA", "LATERAL", "AP", "", "", ""]
    steps = dict(zip(read.reading["step"], read.reading["films"], strict=True))
    assert steps["view: the header contradicts the picture"] == 1
    assert steps["view: of the DICOM header"] == 1
    pd.concat([header, header[:1]]).to_csv(tmp_path / TABLES[1].removesuffix(".gz"), index=False)
    with pytest.raises(ValueError, match=r"metadata\.csv, line 5: imageid .* is listed twice"):
        OPENI.read(tmp_path, "")


def declare(text: str) -> str:
    entities = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>\n<eCitation>'
    return text.replace("<eCitation>", entities)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (declare, r"2\.xml: found a declaration of entities"),
        (lambda text: text.replace("Cardiomegaly", "Cardiomegalia"), "nearest is 'Cardio"),
        (lambda text: text[:100], r"2\.xml: found no XML .*: fetch it again$"),
        (lambda text: text.replace("utf-8", "u4f-8"), r"2\.xml: found no XML .*u4f-8.*again$"),
        (lambda text: text.replace("CXR2", "MIMIC2"), "found no report of OpenI"),
        (lambda text: text.replace('id="CXR2_', 'id="CXR3_'), "found no report of OpenI"),
        (lambda text: text.replace('"CXR2', '"CXR1'), r"1 is in 1\.xml and in 2\.xml; expected"),
        (lambda text: text + " " * 2**20, "expected a report of a few thousand"),
    ],
)  # fmt: skip
def test_another_report_is_refused(tmp_path: Path, change: Callable[[str], str], message: str):
    openi(tmp_path)
    file = tmp_path / "ecgen-radiology" / "2.xml"
    file.write_text(change(openi_report(2).decode()))
    with pytest.raises(ValueError, match=message) as caught:
        OPENI.read(tmp_path, "")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("goal", "found"), [(os.devnull, "is a device or socket"), ("gone.xml", "is a link to gone")]
)
def test_what_is_no_file_among_reports_is_named(tmp_path: Path, goal: str, found: str):
    (openi(tmp_path) / "ecgen-radiology" / "latest.xml").symlink_to(goal)
    with pytest.raises(ValueError, match=rf"latest\.xml: {found}.*; expected a report"):
        OPENI.read(tmp_path, "")


@pytest.mark.parametrize("goal", ["gone.xml", "latest.xml"])
def test_a_link_to_nowhere_in_an_archive_is_named(tmp_path: Path, goal: str):
    with tarfile.open(tmp_path / REPORTS, "w:gz") as packed:
        link = tarfile.TarInfo("latest.xml")
        link.type, link.linkname = tarfile.SYMTYPE, goal
        packed.addfile(link)
    with pytest.raises(
        ValueError, match=rf"{REPORTS}: found no whole archive .*; expected OpenI's"
    ):
        OPENI.read(tmp_path, "")


def test_half_an_archive_and_a_root_of_something_else_are_refused(root: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"no reports of OpenI in .*found nothing"):
        OPENI.read(tmp_path, "")
    with pytest.raises(ValueError, match="no such file; expected"):
        OPENI.read(tmp_path, "reports.tgz")
    with pytest.raises(ValueError, match="null: is a device or socket, no file; expected OpenI"):
        OPENI.read(tmp_path, os.devnull)
    whole = (root / REPORTS).read_bytes()
    (tmp_path / REPORTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="found no whole archive"):
        OPENI.read(tmp_path, "")
    with tarfile.open(tmp_path / REPORTS, "w:gz") as packed:
        packed.add(root / "CXR2_IM-0652-1001.png", "film.png")
    with pytest.raises(ValueError, match="found no report"):
        OPENI.read(tmp_path, "")


@pytest.mark.slow
def test_the_real_headings_have_their_counts(real_root: Path):
    reports = read_reports(real_root / REPORTS)
    assert len(reports) == 3_955
    assert sum(not report.films for report in reports) == 104
    plain = [[plain_heading(one) for one in report.headings] for report in reports]
    times = Counter(one for headings in plain for one in headings)
    held = Counter(one for headings in plain for one in set(headings))
    found = {name: (times[name.casefold()], held[name.casefold()]) for name in HEADINGS}
    assert found == HEADINGS
    blank = "Technical Quality of Image Unsatisfactory "
    assert sum(blank in report.headings for report in reports) == 86


@pytest.mark.slow
def test_the_real_films_are_as_published(real: Manifest):
    assert real.origin == f"{REPORTS}: OpenI, as published, 7,470 films of 3,851 patients"
    first = np.unique(real.patient, return_index=True)[1]
    reports = pd.DataFrame(aligned(real).label[first] == 1, columns=[*FINDINGS, "No Finding"]).sum()
    assert len(first) == 3_851
    assert reports["No Finding"] == 1_379  # of 1,391 reports, twelve of which have no film
    assert reports["Cardiomegaly"] == 345
    assert reports["Mass"] == 15
    steps = dict(zip(real.reading["step"], real.reading["films"], strict=True))
    assert steps == {
        "reports without a film": 104,
        "not stated: No Indexing or Technical Quality of Image Unsatisfactory": 355,
        "view: judged from the picture": 3_851,
        "view: of the DICOM header": 2_414,
        "view: the header contradicts the picture": 198,
    }


def test_the_real_views_have_their_counts(real_root: Path):
    judged = pd.read_csv(real_root / TABLES[0])["tsne-view"].value_counts()
    assert judged.to_dict() == {"PA": 3_267, "L": 584}
    header = pd.read_csv(real_root / TABLES[1], usecols=["View Position"])["View Position"]
    assert header.value_counts()[["PA", "AP", "LL"]].to_dict() == {
        "PA": 3_593,
        "AP": 423,
        "LL": 717,
    }
    assert header.isna().sum() == 2_586


def test_a_folder_of_reports_that_is_named_is_an_input(tmp_path: Path):
    root = openi(tmp_path / "films", archive=False)
    named = next(place for place in root.rglob("*.xml")).parent
    other = named.rename(root / "reports-2")
    place = Source(source="openi", root=str(root), labels=other.name)
    before = film_inputs(place, findings=FINDINGS)
    report = next(other.glob("*.xml"))
    report.write_text(report.read_text() + "\n")
    assert film_inputs(place, findings=FINDINGS) != before

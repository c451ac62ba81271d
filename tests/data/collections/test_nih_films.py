"""RSNA, SIIM and NIH-CXR-LT: patients by mapping alone, boxes, masks; the real label files."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from layouts_other import (
    LT_COLUMNS,
    RSNA_FILMS,
    SIIM_MASKS,
    nih_lt,
    oracle_labels,
    rsna,
    siim,
    write_mapping,
)
from lucency.config.sections import Source
from lucency.core.manifest import UNKNOWN_PATIENT, Manifest
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.collections.nih_films import NIH_LT, RSNA, SIIM, decode_runs, read_mask
from lucency.data.label_choices import choose_labels
from lucency.data.sources import list_films, read_films

REAL_RSNA = "kaggle_stage_2_train_labels.csv.zip"
REAL_HEADERS = "kaggle_stage_2_train_images_dicom_headers.csv.gz"
REAL_SIIM = "siim-pneumothorax-train-rle.csv.gz"
GOOGLE = "google2019_nih-chest-xray-labels.csv.gz"
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


@pytest.fixture(scope="module")
def real_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = (REAL_RSNA, REAL_HEADERS, REAL_SIIM, GOOGLE)
    return oracle_labels(*names, root=tmp_path_factory.mktemp("real") / "nih-films")


def direct_mask(text: str) -> np.ndarray:
    """Decode runs pixel by pixel: gap, length; down the columns."""
    flat, place = np.zeros(1024 * 1024, dtype=bool), 0
    words = [int(word) for word in text.split()]
    for gap, length in zip(words[::2], words[1::2], strict=True):
        place += gap
        flat[place : place + length] = True
        place += length
    return flat.reshape(1024, 1024).T


def test_rsna_has_targets_classes_and_boxes_of_films(tmp_path: Path):
    films = RSNA.read(rsna(tmp_path), "")
    assert films.image.tolist() == [*RSNA_FILMS]
    assert films.label.tolist() == [[0, 0], [1, 0], [1, 0], [0, 1]]
    assert films.facts["class"].tolist() == [about[1] for about in RSNA_FILMS.values()]
    box = films.boxes.iloc[0]
    assert box[["x", "y", "w", "h"]].tolist() == [264 / 1024, 152 / 1024, 213 / 1024, 379 / 1024]
    assert films.boxes["image"].tolist() == [films.image[1], films.image[1], films.image[2]]
    assert films.facts["view"].tolist() == ["PA", "AP", "PA", "PA"]
    assert films.facts["age"].isna().tolist() == [False, False, True, False]  # 150 years
    assert films.reading.to_numpy().tolist() == [["age: impossible", "", 1]]


def test_rsna_s_opacity_is_pneumonia_only_where_the_protocol_maps_it(tmp_path: Path):
    films = RSNA.read(rsna(tmp_path), "")
    names = ("Lung Opacity", "Pneumonia", "No Finding", "Mass")
    made = choose_labels(films, source=Source(source="rsna"), findings=names, collection=RSNA)
    assert made.label[:, 0].tolist() == [0, 1, 1, 0]
    assert np.isnan(made.label[:, 1:]).all()
    place = Source(source="rsna", align={"Lung Opacity": "Pneumonia", "Normal": "No Finding"})
    made = choose_labels(films, source=place, findings=names[1:], collection=RSNA)
    assert made.label[:, :2].tolist() == [[0, 0], [1, 0], [1, 0], [0, 1]]
    assert np.isnan(made.label[:, 2]).all()
    assert made.boxes["finding"].unique().tolist() == ["Pneumonia"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_patients_are_those_of_nih_by_the_mapping(tmp_path: Path, kind: str):
    films = RSNA.read(rsna(tmp_path, mapped=kind), "")
    assert films.patient.tolist() == [13, 13, 71, 99]
    assert films.facts["nih"].tolist() == [about[2] for about in RSNA_FILMS.values()]
    masked = SIIM.read(siim(tmp_path / "siim", mapped=kind), "")
    assert masked.patient.tolist() == [1, 2, 2]


@pytest.mark.parametrize(("source", "write"), [("rsna", rsna), ("siim", siim)])
def test_films_without_a_mapping_have_no_patients_and_are_refused(
    tmp_path: Path, source: str, write: Callable[..., Path]
):
    root = write(tmp_path / source, mapped="")
    collection = COLLECTIONS[source]
    films = collection.read(root, "")
    assert (films.patient == UNKNOWN_PATIENT).all()
    assert "of unknown patients" in films.origin
    place = Source.model_validate({"source": source, "root": str(root)})
    refused = r"\d of \d films have no known patient.*mapping to NIH's names"
    findings = ("Lung Opacity",) if source == "rsna" else ("Pneumothorax",)
    with pytest.raises(ValueError, match=refused):
        list_films(place, findings=findings, split=lambda films, _: films.patient)
    with pytest.raises(ValueError, match=refused):
        read_films(place, findings=findings, out=tmp_path / "manifest")


def test_films_that_a_mapping_lacks_may_be_excluded(tmp_path: Path):
    root = siim(tmp_path / "siim")
    first, *others = SIIM_MASKS
    known = {film: f"0000000{row}_000.png" for row, film in enumerate(others)}
    write_mapping(root, known, kind="json")
    (tmp_path / "lost.txt").write_text(f"{first}\n")
    place = {"source": "siim", "root": str(root), "exclude": str(tmp_path / "lost.txt")}
    split = lambda films, _: films.patient  # noqa: E731 - the parts do not matter here
    films, _ = list_films(Source.model_validate(place), findings=("Pneumothorax",), split=split)
    assert films.image.tolist() == others


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "found no JSON"),
        ('{"datasets": []}', "found no list of films"),
        (json.dumps([{"subset_img_id": "a", "img_id": "film.png"}]), "found 'film.png'"),
        (
            json.dumps([{"subset_img_id": "a", "img_id": f"0000000{n}_000.png"} for n in (1, 2)]),
            "a is 00000001_000.png and 00000002_000.png",
        ),
    ],
)
def test_another_mapping_is_refused(tmp_path: Path, content: str, message: str):
    (rsna(tmp_path) / MAPPING).write_text(content)
    with pytest.raises(ValueError, match=message):
        RSNA.read(tmp_path, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(",1\n", ",0\n", 1), "line 3: Target is 0, with a box"),
        (lambda text: text.replace(",0\n", ",1\n", 1), "line 2: Target is 1, without a box"),
        (lambda text: text.replace(",0\n", ",2\n", 1), "found '2', expected 0 or 1"),
        (lambda text: text.replace("patientId", "id"), "no column 'patientId'"),
    ],
)
def test_another_label_file_of_rsna_is_refused(
    tmp_path: Path, change: Callable[[str], str], message: str
):
    file = rsna(tmp_path) / "stage_2_train_labels.csv"
    file.write_text(change(file.read_text()))
    with pytest.raises(ValueError, match=message):
        RSNA.read(tmp_path, "")


def test_a_cell_that_is_no_age_or_name_is_refused_with_its_file_and_line(tmp_path: Path):
    headers = rsna(tmp_path / "rsna") / "stage_2_train_images_dicom_headers.csv"
    ages = pd.read_csv(headers, dtype=str, index_col=0)
    ages.assign(PatientAge="3}3").to_csv(headers)
    with pytest.raises(ValueError, match=r"dicom_headers\.csv, line 2, PatientAge: found '3}3'"):
        RSNA.read(tmp_path / "rsna", "")
    file = nih_lt(tmp_path / "lt") / "PruneCXR" / "miccai2023_nih-cxr-lt_labels_val.csv"
    pd.read_csv(file, dtype=str).assign(id="|00000001_001.png").to_csv(file, index=False)
    with pytest.raises(ValueError, match=r"labels_val\.csv, line 2, id: found '\|00000001_001"):
        NIH_LT.read(tmp_path / "lt", "")


def test_a_class_that_rsna_does_not_have_is_refused(tmp_path: Path):
    file = rsna(tmp_path) / "stage_2_detailed_class_info.csv"
    file.write_text(file.read_text().replace("Normal", "Healthy"))
    with pytest.raises(ValueError, match="expected one of Lung Opacity, No Lung Opacity"):
        RSNA.read(tmp_path, "")


def test_siim_s_masks_are_runs_down_the_columns(tmp_path: Path):
    films = SIIM.read(siim(tmp_path), "")
    assert films.label[:, 0].tolist() == [0, 1, 1]
    file = tmp_path / "train-rle.csv"
    for film, masks in SIIM_MASKS.items():
        expected = np.zeros((1024, 1024), dtype=bool)
        for text in masks:
            if text != "-1":
                expected |= direct_mask(text)
                assert np.array_equal(decode_runs(text), direct_mask(text))
        assert np.array_equal(read_mask(file, f"{film}.dcm"), expected)
    with pytest.raises(ValueError, match=r"no film 'a\.dcm'"):
        read_mask(file, "a.dcm")


def test_the_box_of_a_mask_is_the_smallest_that_holds_it(tmp_path: Path):
    films = SIIM.read(siim(tmp_path), "")
    texts = [text for masks in SIIM_MASKS.values() for text in masks if text != "-1"]
    for box, text in zip(films.boxes.to_numpy(), texts, strict=True):
        assert box[2:].tolist() == smallest_box(direct_mask(text))


def smallest_box(mask: np.ndarray) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top = columns[0], rows[0]
    box = [left, top, columns[-1] - left + 1, rows[-1] - top + 1]
    return [float(edge) / 1024 for edge in box]


@pytest.mark.parametrize("text", ["5", "5 0", "1048570 10", "a b", "5 -3", "", "9" * 30 + " 1"])
def test_runs_that_are_none_are_refused(tmp_path: Path, text: str):
    file = siim(tmp_path) / "train-rle.csv"
    table = pd.read_csv(file, dtype=str)
    table.iloc[1, 1] = text
    table.to_csv(file, index=False)
    with pytest.raises(ValueError, match=r"line 3, EncodedPixels: found"):
        SIIM.read(tmp_path, "")


def test_the_long_tail_has_20_findings_and_nih_s_patients(tmp_path: Path):
    films = NIH_LT.read(nih_lt(tmp_path), "")
    assert films.image.tolist() == ["00000001_000.png", "00000001_001.png", "00000002_000.png"]
    assert films.patient.tolist() == [1, 1, 2]
    assert films.facts["split"].tolist() == ["train", "val", "test"]
    assert set(films.findings) == set(LT_COLUMNS)
    one = [n for n, on in zip(films.findings, films.label[0] == 1, strict=True) if on]
    assert one == ["Mass", "Pleural Thickening"]
    names = ("Pleural_Thickening", "No Finding")
    made = choose_labels(films, source=Source(source="nih-lt"), findings=names, collection=NIH_LT)
    assert made.label.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_the_single_label_lists_are_named_by_their_folder(tmp_path: Path):
    root = nih_lt(tmp_path / "films")
    films = NIH_LT.read(root, "LongTailCXR")
    assert films.facts["file"].tolist() == ["train", "train", "test"]
    assert films.label[:, films.findings.index("Mass")].tolist() == [1, 0, 0]
    assert films.reading.to_numpy().tolist() == [["on several lists", "", 1]]
    source = Source(source="nih-lt", root=str(root))
    found = read_films(source, findings=("Mass",), out=tmp_path / "manifest")
    assert Path(found.facts["path"][0]) == root / "images" / "00000001_000.png"


def test_other_lists_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"expected PruneCXR/miccai2023_nih-cxr-lt_labels_train"):
        NIH_LT.read(tmp_path, "")
    file = nih_lt(tmp_path) / "PruneCXR" / "miccai2023_nih-cxr-lt_labels_train.csv"
    text = file.read_text()
    file.write_text(text.replace("Tortuous Aorta", "Aorta"))
    with pytest.raises(ValueError, match="no column 'Tortuous Aorta'"):
        NIH_LT.read(tmp_path, "")
    file.write_text(text.replace("00000001_000.png", "film.png"))
    with pytest.raises(ValueError, match=r"found 'film\.png', expected a name of NIH"):
        NIH_LT.read(tmp_path, "")


def test_the_real_file_of_rsna_is_as_published(real_root: Path):
    films = RSNA.read(real_root, "")
    assert films.origin.startswith(f"{REAL_RSNA}: RSNA pneumonia 2018, as published, 26,684 films")
    assert (films.label[:, 0] == 1).sum() == 6_012
    assert len(films.boxes) == 9_555
    assert len(pd.read_csv(real_root / REAL_RSNA)) == 30_227
    facts = films.facts
    assert facts["view"].value_counts().to_dict() == {"PA": 14_511, "AP": 12_173}
    assert facts["sex"].value_counts().to_dict() == {"M": 15_166, "F": 11_518}
    assert facts["age"].isna().sum() == 5  # 148, 150, 151, 153, 155
    assert (facts["age"].min(), facts["age"].max()) == (1, 92)
    edge = films.boxes[["x", "y"]].to_numpy() + films.boxes[["w", "h"]].to_numpy()
    assert (films.boxes[["x", "y"]].to_numpy().min() >= 0, edge.max() <= 1) == (True, True)


def test_the_real_file_of_siim_is_as_published(real_root: Path):
    films = SIIM.read(real_root, REAL_SIIM)
    assert films.origin.startswith(
        f"{REAL_SIIM}: SIIM-ACR pneumothorax, as published, 12,047 films"
    )
    table = pd.read_csv(real_root / REAL_SIIM)
    assert table.columns.tolist() == ["ImageId", " EncodedPixels"]
    assert (len(table), (table[" EncodedPixels"].str.strip() == "-1").sum()) == (12_954, 9_378)
    assert (films.label == 1).sum() == 2_669
    rows = films.boxes.groupby("image").size().value_counts()
    assert (rows[2], rows.index.max()) == (447, 10)


def test_real_masks_and_boxes_are_those_of_a_direct_decode(real_root: Path):
    films, file = SIIM.read(real_root, REAL_SIIM), real_root / REAL_SIIM
    table = pd.read_csv(file, skipinitialspace=True)
    masked = table[table["EncodedPixels"].str.strip() != "-1"].reset_index(drop=True)
    for row in (0, 1_000, 2_000, 3_575):
        expected = direct_mask(masked["EncodedPixels"][row])
        assert films.boxes.iloc[row, 2:].tolist() == smallest_box(expected)
    film = masked["ImageId"].value_counts().index[0]
    several = masked["EncodedPixels"][masked["ImageId"] == film].map(direct_mask)
    assert len(several) == 10
    assert np.array_equal(read_mask(file, film), np.logical_or.reduce(several.tolist()))


def test_google_s_real_labels_are_of_nih_s_films(real_root: Path):
    table = pd.read_csv(real_root / GOOGLE)
    assert (len(table), table["Patient ID"].nunique()) == (4_376, 1_695)
    assert table["Set Id"].value_counts().to_dict() == {"val": 2_414, "test": 1_962}


@pytest.mark.parametrize(("source", "write"), [("rsna", rsna), ("siim", siim)])
def test_films_are_found_as_dicom(source: str, write: Callable[..., Path], tmp_path: Path):
    root = write(tmp_path / "films", mapped="csv")
    place = Source.model_validate({"source": source, "root": str(root)})
    findings = ("Lung Opacity", "Pneumothorax")
    found = read_films(place, findings=findings, out=tmp_path / "manifest")
    assert [Path(file).stem for file in found.facts["path"]] == found.image.tolist()


def test_the_mapping_may_hold_more_films_than_the_labels(tmp_path: Path):
    root = rsna(tmp_path, mapped="")
    write_mapping(root, {"elsewhere": "00000001_000.png"}, kind="csv")
    films: Manifest = RSNA.read(root, "")
    assert "4 films without a mapping to NIH's names" in films.origin

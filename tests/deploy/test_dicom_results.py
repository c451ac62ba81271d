"""DICOM results: re-read by highdicom, checked by dicom-validator, boxes where they belong."""

import json
import logging
import sys
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from dicom_validator.validator.dicom_info import DicomInfo
from dicom_validator.validator.iod_validator import IODValidator
from pydicom.config import disable_value_validation
from pydicom.data import get_testdata_file
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from typer.testing import CliRunner

from dicom_films import dicom_bytes, phantom_grey, stored_for
from lucency.cli.app import app
from lucency.core.manifest import FINDINGS, save_prepared_tables
from lucency.core.predictions import Predictions
from lucency.core.saved_files import read_json
from lucency.deploy.dicom_results import (
    CODES,
    RESEARCH,
    RESEARCH_TEXT,
    Algorithm,
    Results,
    algorithm_of,
    result_objects,
    results_of,
    write_results,
)
from lucency.explain.heatmaps import Centres, Heatmaps, even_centres
from lucency.pipeline.library import load, prepare
from served import served_model

ALGORITHM = Algorithm("Lucency densenet121", "0.1.0", "0123456789abcdef")
MARK = "Zz7<script>alert(1)</script>\x1b[31m"


def maps_of(grids: dict[str, np.ndarray], centres: Centres | None = None) -> Heatmaps:
    held = np.array(list(grids.values()), dtype=np.float32)
    grid = held[None] if grids else np.zeros((1, 0, 4, 4), np.float32)
    return Heatmaps(
        method="grad-cam",
        findings=tuple(grids),
        image=np.array(["film"]),
        patient=np.array([-1]),
        grid=grid,
        centres=centres or even_centres((grid.shape[2], grid.shape[3])),
    )


def results(grids: dict[str, np.ndarray] | None = None, **changes: Any) -> Results:
    probability = np.linspace(0.05, 0.95, len(FINDINGS))
    held = {"findings": FINDINGS, "probability": probability, "maps": maps_of(grids or {})}
    return Results(**{**held, "threshold": np.full(len(FINDINGS), 0.6), **changes})


def planted(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return a map on the film's own pixels that is high in a box: left, top, right, bottom."""
    left, top, right, bottom = box
    cells = np.zeros((height, width), np.float32)
    cells[top:bottom, left:right] = 2.5
    return cells


def read_back(made: Dataset) -> Dataset:
    held = BytesIO()
    made.save_as(held, enforce_file_format=True)
    held.seek(0)
    return pydicom.dcmread(held)


@pytest.fixture(scope="module")
def chest() -> bytes:
    return Path(get_testdata_file("RG1_UNCI.dcm", download=False)).read_bytes()


@pytest.fixture(scope="module")
def of_chest(chest: bytes) -> dict[str, Dataset]:
    grids = {"Effusion": np.eye(7), "Hernia": np.ones((7, 7)), "Fibrosis": np.eye(7)[::-1]}
    return result_objects(chest, results(grids), algorithm=ALGORITHM)


def test_the_report_of_a_real_film_is_read_again(of_chest: dict[str, Dataset], chest: bytes):
    held = BytesIO()
    of_chest["sr"].save_as(held, enforce_file_format=True)
    held.seek(0)
    report = hd.sr.srread(held)
    assert isinstance(report, hd.sr.ComprehensiveSR)
    plain = report.content.get_image_measurement_groups()
    planar = report.content.get_planar_roi_measurement_groups()
    assert (len(plain), len(planar)) == (12, 2)  # a map that is the same everywhere has no box
    found = {group.tracking_identifier: group for group in (*plain, *planar)}
    assert set(found) == set(FINDINGS)
    expected = results()
    for row, finding in enumerate(FINDINGS):
        group = found[finding]
        values = {one.name.value: one for one in group.get_measurements()}
        assert values["122157"].value == pytest.approx(expected.probability[row], abs=1e-6)
        assert values["122157"].unit == codes.UCUM.NoUnits
        assert values["THRESHOLD"].value == 0.6
        present = codes.SCT.Present if expected.probability[row] >= 0.6 else codes.SCT.Absent
        stated = {one.name.value: one.value for one in group.get_qualitative_evaluations()}
        assert stated["PRESENCE"] == present
        code = group.finding_type
        if finding in CODES:
            assert (code.value, code.scheme_designator, code.meaning) == CODES[finding]
        else:
            assert code.scheme_designator == "99LUCENCY"
    source = pydicom.dcmread(BytesIO(chest), stop_before_pixels=True)
    image = found["Mass"].source_images[0].ReferencedSOPSequence[0]
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_who_made_the_results_stands_in_them(of_chest: dict[str, Dataset]):
    words = read_back(of_chest["sr"]).to_json()
    for word in (*ALGORITHM, RESEARCH_TEXT, "Artificial Intelligence"):
        assert word in words
    segment = read_back(of_chest["seg"]).SegmentSequence[0]
    known = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (known.AlgorithmName, known.AlgorithmVersion) == ALGORITHM[:2]
    assert ALGORITHM.fingerprint in known.AlgorithmParameters
    family = known.AlgorithmFamilyCodeSequence[0]
    assert (family.CodeValue, family.CodeMeaning) == ("123110", "Artificial Intelligence")
    for made in of_chest.values():
        assert RESEARCH in made.SeriesDescription
        assert (made.Manufacturer, made.ManufacturerModelName) == ("Lucency", ALGORITHM.name)
        assert made.DeviceSerialNumber == ALGORITHM.fingerprint
    assert RESEARCH in of_chest["seg"].ContentDescription
    assert RESEARCH_TEXT in of_chest["overlay"].DerivationDescription
    assert of_chest["overlay"].BurnedInAnnotation == "YES"


def test_patient_and_study_are_those_of_the_film(of_chest: dict[str, Dataset], chest: bytes):
    source = pydicom.dcmread(BytesIO(chest), stop_before_pixels=True)
    uids = set()
    for made in of_chest.values():
        again = read_back(made)
        for name in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "PatientSex"):
            assert again[name].value == source[name].value
        uids |= {again.SOPInstanceUID, again.SeriesInstanceUID}
    assert len(uids) == 6
    assert not uids & {source.SOPInstanceUID, source.SeriesInstanceUID}


def test_the_standard_s_tables_hold(of_chest: dict[str, Dataset], chest: bytes):
    fractional = result_objects(
        chest, results({"Mass": np.eye(7)}), algorithm=ALGORITHM, segmentation="FRACTIONAL"
    )
    for made in (*of_chest.values(), *fractional.values()):
        assert problems(read_back(made)) == {}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("sr", "CompletionFlag"), ("sr", "StudyInstanceUID"), ("seg", "SegmentSequence"),
        ("seg", "ContentLabel"), ("overlay", "ConversionType"), ("overlay", "BitsStored"),
    ],
)  # fmt: skip
def test_the_tables_find_what_is_absent(of_chest: dict[str, Dataset], kind: str, name: str):
    broken = read_back(of_chest[kind])
    delattr(broken, name)
    assert problems(broken)


def problems(dataset: Dataset) -> dict[str, list[str]]:
    """Return what dicom-validator finds, by module."""
    logging.disable(logging.CRITICAL)
    try:
        found = IODValidator(dataset, standard(), log_level=logging.CRITICAL).validate()
    finally:
        logging.disable(logging.NOTSET)
    return {
        module: [str(tag) for tag in tags] for module, tags in (found.module_errors or {}).items()
    }


@cache
def standard() -> DicomInfo:
    """Return PS3.3's tables of modules and attributes, as highdicom brings them.

    dicom-validator reads them from the standard's site, which tests do not. What depends on
    conditions counts as optional here; functional groups and the content tree, whose attributes all
    do, are read by highdicom.
    """
    folder = files("highdicom") / "_standard"
    modules, iods, classes = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("module_attribute_map", "iod_module_map", "sop_class_iod_map")
    )
    conditional = ("sr-document-content", "segmentation-multi-frame-functional-groups")
    dictionary = {
        tag_text(tag): {"name": name, "vr": vr, "vm": vm, "prop": retired}
        for tag, (vr, vm, name, retired, _) in DicomDictionary.items()
    }
    return DicomInfo(
        dictionary,
        {
            uid: {
                "title": name,
                "modules": {one["key"]: {"ref": one["key"], "use": one["usage"]} for one in parts},
                "group_macros": {},
            }
            for uid, name in classes.items()
            if (parts := iods.get(name))
        },
        {
            name: module_of(attributes, nested=name not in conditional)
            for name, attributes in modules.items()
        },
    )


def module_of(attributes: list[dict[str, Any]], *, nested: bool) -> dict[str, Any]:
    top: dict[str, Any] = {}
    for one in attributes:
        if not nested and one["path"]:
            continue
        level, path = top, [text_of(name) for name in one["path"]]
        for step in path:
            level = level.setdefault(step, {"name": step, "type": "3"}).setdefault("items", {})
        firm = one["type"] if nested and one["type"] in ("1", "2") else "3"
        if one["keyword"] in keyword_dict:
            about = {"name": one["keyword"], "type": firm}
            level.setdefault(text_of(one["keyword"]), {}).update(about)
    return top


def text_of(keyword: str) -> str:
    return tag_text(tag_for_keyword(keyword) or 0)


def tag_text(tag: int) -> str:
    return f"({Tag(tag).group:04X},{Tag(tag).element:04X})"


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("segmentation", ["BINARY", "FRACTIONAL"])
def test_a_planted_box_is_found_on_the_pixels_of_the_file(mirrored: bool, segmentation: str):
    height, width = phantom_grey().shape
    box = (20, 10, 52, 36)
    content = dicom_bytes(
        stored_for(phantom_grey()), PatientOrientation=["R" if mirrored else "L", "F"]
    )
    shown = planted(height, width, box)
    maps = maps_of({"Mass": shown[:, ::-1] if mirrored else shown})  # of the film as it is shown
    made = result_objects(
        content, results(maps=maps), algorithm=ALGORITHM, segmentation=segmentation
    )
    report = hd.sr.ComprehensiveSR.from_dataset(read_back(made["sr"]))
    group = report.content.get_planar_roi_measurement_groups()[0]
    corners = group.roi.value
    np.testing.assert_array_equal(corners[0], corners[-1])
    assert (*corners.min(axis=0), *corners.max(axis=0)) == box
    regions = hd.seg.Segmentation.from_dataset(read_back(made["seg"]))
    frame = regions.pixel_array if regions.pixel_array.ndim == 2 else regions.pixel_array[0]
    np.testing.assert_array_equal(frame > 0, planted(height, width, box) > 0)
    assert regions.get_segment_description(1).SegmentLabel == "Mass"
    assert made["overlay"].PatientOrientation == ["L", "F"]


def test_a_coarse_grid_covers_the_whole_film():
    grid = np.zeros((4, 4), np.float32)
    grid[1, 3] = 1
    made = result_objects(
        dicom_bytes(stored_for(phantom_grey())), results({"Mass": grid}), algorithm=ALGORITHM
    )
    report = hd.sr.ComprehensiveSR.from_dataset(read_back(made["sr"]))
    corners = report.content.get_planar_roi_measurement_groups()[0].roi.value
    height, width = phantom_grey().shape
    # half of the greatest value is reached half a cell from the cell's centre, and at the edge
    assert (*corners.min(axis=0), *corners.max(axis=0)) == (0.75 * width, 22, width, 44)
    assert height == 88


def test_the_box_is_of_the_region_with_the_greatest_value():
    cells = planted(88, 96, (5, 5, 60, 60))
    cells[70:80, 70:90] = 3
    made = result_objects(
        dicom_bytes(stored_for(phantom_grey())), results({"Mass": cells}), algorithm=ALGORITHM
    )
    report = hd.sr.ComprehensiveSR.from_dataset(read_back(made["sr"]))
    corners = report.content.get_planar_roi_measurement_groups()[0].roi.value
    assert (*corners.min(axis=0), *corners.max(axis=0)) == (70, 70, 90, 80)


def test_without_heat_maps_there_is_no_segmentation(tmp_path: Path):
    film = tmp_path / "film.dcm"
    film.write_bytes(dicom_bytes(stored_for(phantom_grey()), PatientOrientation=None))
    made = write_results({film: results()}, algorithm=ALGORITHM, out=tmp_path / "out")
    assert [file.name for file in made] == ["0001-overlay.dcm", "0001-sr.dcm"]
    assert not pydicom.dcmread(made[0]).PatientOrientation


def test_the_overlay_has_words_outline_and_film(of_chest: dict[str, Dataset]):
    picture = read_back(of_chest["overlay"]).pixel_array
    assert picture.shape[1] == 964
    strip, film = picture[1024:].astype(int), picture[:1024].astype(int)
    reddish = (strip[..., 0] > 200) & (strip[..., 1] < 120)
    assert reddish.sum() > 200  # the notice
    assert (np.ptp(film, axis=2) > 60).sum() > 1000  # lines
    plain = film[np.ptp(film, axis=2) == 0]
    assert len(plain) > 0.9 * 1024 * 964


def test_a_folder_is_complete_or_absent(tmp_path: Path):
    film, out = tmp_path / "film.dcm", tmp_path / "out"
    film.write_bytes(dicom_bytes(stored_for(phantom_grey())))
    maps = results({"Mass": np.eye(4)})
    made = write_results({film: maps}, algorithm=ALGORITHM, out=out)
    kinds = ["0001-overlay.dcm", "0001-seg.dcm", "0001-sr.dcm"]
    assert [file.name for file in made] == kinds
    before = [file.read_bytes() for file in made]
    assert write_results({film: maps}, algorithm=ALGORITHM, out=out) == made
    assert [file.read_bytes() for file in made] == before
    with pytest.raises(ValueError, match="was "):
        write_results({film: results()}, algorithm=ALGORITHM, out=out)
    lost, bad = tmp_path / "lost.dcm", tmp_path / "bad"
    lost.write_bytes(dicom_bytes(stored_for(phantom_grey()), SeriesInstanceUID=None))
    with pytest.raises(ValueError, match="no SeriesInstanceUID"):
        write_results({film: maps, lost: maps}, algorithm=ALGORITHM, out=bad)
    assert not bad.exists()


def test_runs_are_no_place_for_patients(tmp_path: Path):
    film = tmp_path / "film.dcm"
    film.write_bytes(dicom_bytes(stored_for(phantom_grey())))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "protocol.toml").write_text("")
    for out in (tmp_path / "run", tmp_path / "run" / "deep" / "results"):
        with pytest.raises(ValueError, match="holds a run"):
            write_results({film: results()}, algorithm=ALGORITHM, out=out)


def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chest: bytes
):
    with pytest.raises(ValueError, match="expected BINARY or FRACTIONAL"):
        result_objects(chest, results(), algorithm=ALGORITHM, segmentation="LABELMAP")
    with pytest.raises(ValueError, match="does not fit"):
        results(probability=np.full(14, 1.5))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r"lucency\[dicom-out\]'.* 3\.13"):
        result_objects(chest, results(), algorithm=ALGORITHM)


def a_model(maps: Callable[..., Heatmaps] = maps_of) -> Any:
    """Return what has the parts of a loaded model that results need."""
    probability = np.linspace(0.05, 0.95, len(FINDINGS))

    def predict(film: Path) -> Predictions:
        zeros = np.zeros((1, len(FINDINGS)), np.float32)
        return SimpleNamespace(probability=probability[None], image=[str(film)], label=zeros)

    def explain(film: Path, *, method: str, findings: tuple[str, ...]) -> Any:
        return SimpleNamespace(maps=maps({name: np.eye(4) for name in findings}))

    home = SimpleNamespace(networks={"stub": Path("nowhere")})
    return SimpleNamespace(
        name="stub", kind="network", findings=FINDINGS, threshold=np.full(len(FINDINGS), 0.8),
        predict=predict, explain=explain, predictor=SimpleNamespace(home=home),
    )  # fmt: skip


def test_heat_maps_are_of_the_findings_that_reach_their_thresholds(tmp_path: Path):
    film = tmp_path / "film.dcm"
    film.write_bytes(dicom_bytes(stored_for(phantom_grey())))
    found = results_of([film], a_model())[film]
    assert found.maps.findings == FINDINGS[-3:]
    assert results_of([film], a_model(), method="none")[film].maps.findings == ()
    with pytest.raises(ValueError, match=r"method 'grad-can' is unknown: expected .*nearest is"):
        results_of([], a_model(), method="grad-can")
    film.write_bytes(dicom_bytes(stored_for(phantom_grey()), PatientName="ANOTHER"))
    with pytest.raises(ValueError, match=r"film.dcm changed while it was predicted"):
        write_results({film: found}, algorithm=ALGORITHM, out=tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
    png = tmp_path / "film.png"
    png.write_bytes(b"\x89PNG")
    for wrong, why in ((png, "not a DICOM"), (tmp_path, "a folder"), (tmp_path / "no", "no such")):
        with pytest.raises(ValueError, match=why):
            results_of([wrong], a_model())


def test_a_fingerprint_is_that_of_what_predicts(tmp_path: Path):
    served_model(tmp_path / "networks" / "test_resnet")
    model = load(tmp_path / "networks" / "test_resnet")
    first = algorithm_of(model)
    assert first.name == "Lucency test_resnet"
    (tmp_path / "index").mkdir()  # of similar films, which is made when it is first needed
    (tmp_path / "index" / "receipt.json").write_text('{"a": 1}')
    assert algorithm_of(model) == first
    about = tmp_path / "networks" / "test_resnet" / "classifier.json"
    about.write_text(json.dumps(read_json(about) | {"threshold": [0.5]}))
    assert algorithm_of(model).fingerprint != first.fingerprint


def test_a_place_inside_a_run_is_refused_before_films_are_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "protocol.toml").touch()
    monkeypatch.setattr("lucency.pipeline.library.load", lambda *_, **__: pytest.fail("loaded"))
    words = ["results", str(tmp_path), "film.dcm", "--out", str(tmp_path / "results")]
    done = CliRunner().invoke(app, words)
    assert "holds a run" in str(done.exception)


def marked() -> bytes:
    """Return a film whose every text element is the mark."""
    kinds = {"LO", "LT", "PN", "SH", "ST", "UT", "UC"}
    words = {
        name: MARK.replace("^", " ")
        for name, tag in keyword_dict.items()
        if name and dictionary_VR(tag) in kinds and tag >> 16 in (0x8, 0x10, 0x18, 0x20, 0x40)
    }
    with disable_value_validation():
        return dicom_bytes(stored_for(phantom_grey()), **words)


@pytest.mark.filterwarnings("ignore")
def test_texts_of_the_film_go_nowhere_but_to_the_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    film, out = tmp_path / "film.dcm", tmp_path / "out"
    film.write_bytes(marked())
    assert film.read_bytes().count(b"Zz7<script>") > 100
    monkeypatch.setattr("lucency.pipeline.library.load", lambda *_, **__: a_model())
    (tmp_path / "model").mkdir()
    words = ["results", str(tmp_path / "model"), str(film), "--out", str(out), "--json"]
    called = CliRunner().invoke(app, words, catch_exceptions=False)
    assert called.exit_code == 0, called.output
    assert "Zz7" not in called.output + "".join(capfd.readouterr())
    assert "Zz7" not in (out / "receipt.json").read_text()
    for file in out.glob("*.dcm"):
        again = pydicom.dcmread(file)
        assert str(again.PatientName).startswith("Zz7<script>")
        assert "Zz7" not in str(again.get("SeriesDescription", "")) + file.name
        assert "Zz7" not in str(again.get("InstitutionName", ""))


@pytest.mark.filterwarnings("ignore")
def test_prepared_films_hold_no_text_of_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    film, part = tmp_path / "film.dcm", tmp_path / "part.dcm"
    film.write_bytes(marked())
    with disable_value_validation():
        part.write_bytes(dicom_bytes(stored_for(phantom_grey()), BodyPartExamined=MARK))
    prepared = prepare([film, part], size=32)
    save_prepared_tables(prepared, tmp_path)
    assert prepared.rejected["image"].tolist() == [str(part)]
    written = "".join(file.read_text() for file in tmp_path.iterdir() if file.suffix != ".dcm")
    assert str(film) in written
    assert "Zz7" not in written + "".join(capfd.readouterr())


def test_names_keep_their_characters(tmp_path: Path):
    name = "Müller^Jürgen=山田^太郎"
    content = dicom_bytes(
        stored_for(phantom_grey()), SpecificCharacterSet="ISO_IR 192", PatientName=name
    )
    for made in result_objects(content, results(), algorithm=ALGORITHM).values():
        assert str(read_back(made).PatientName) == name

"""Results that archives read: probabilities, boxes and heat maps of a DICOM film, as DICOM.

Three objects a film: a Comprehensive SR by template TID 1500 (PS3.16), a segmentation of the heat
maps, and a secondary capture that shows both. They copy patient and study of the film, and so are
clinical records; each says that it is for research only. Letters in shapes: k findings, h and w
pixels of the film's file, s segments.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from lucency.core.files import write_whole
from lucency.core.manifest import require
from lucency.core.saved_files import fingerprint_content
from lucency.core.stage import produce_answer
from lucency.data.dicom import decode_dicom_deep, eight_bits, is_dicom
from lucency.data.dicom_elements import quiet_pydicom
from lucency.deploy.film_answers import about_model
from lucency.deploy.openapi import EXPLAIN_METHODS
from lucency.explain.heatmaps import Heatmaps, blend, even_centres

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.sr.coding import Code

    from lucency.pipeline.library import Model

RESEARCH = "NOT FOR CLINICAL USE"
RESEARCH_TEXT = "Research only, not for clinical use; not a medical device."
LEVEL = 0.5  # of a map's own range: what is above is the region
MAKER, SCHEME = "Lucency", "99LUCENCY"
SEGMENTATIONS = ("BINARY", "FRACTIONAL")
SERIES = 9900  # the number of the first series written
LONGEST_SIDE = 1024  # pixels of the secondary capture's film
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167))
PATIENT_AND_STUDY = (
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate",
    "PatientSex", "PatientIdentityRemoved", "DeidentificationMethod", "StudyDate", "StudyTime",
    "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
SHAPE = ("Modality", "Rows", "Columns")
CODES = {  # PS3.16, and SNOMED CT concepts that published terminology maps use with this meaning
    "Atelectasis": ("46621007", "SCT", "Atelectasis"),
    "Consolidation": ("95436008", "SCT", "Pulmonary consolidation"),
    "Edema": ("19242006", "SCT", "Pulmonary edema"),
    "Effusion": ("60046008", "SCT", "Pleural effusion"),
    "Emphysema": ("87433001", "SCT", "Pulmonary emphysema"),
    "Fibrosis": ("51615001", "SCT", "Pulmonary fibrosis"),
    "Infiltration": ("112121", "DCM", "Infiltrate"),
    "Mass": ("4147007", "SCT", "Mass"),
    "Nodule": ("27925004", "SCT", "Nodule"),
    "Pneumonia": ("233604007", "SCT", "Pneumonia"),
    "Pneumothorax": ("36118008", "SCT", "Pneumothorax"),
}


class Algorithm(NamedTuple):
    """What made the results: its name, its version and the fingerprint of what was fitted."""

    name: str
    version: str
    fingerprint: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """One film's results: probabilities, their thresholds, and heat maps of any of the findings.

    `maps` holds one film, in shares of it as it is shown (not mirrored). `film` is the fingerprint
    of its file's content, "" of a film that has none.
    """

    findings: tuple[str, ...]
    probability: Float64[np.ndarray, " k"]
    threshold: Float64[np.ndarray, " k"]
    maps: Heatmaps
    film: str = ""

    def __post_init__(self) -> None:
        count = len(self.findings)
        require(count > 0, "results' findings", "none")
        require(self.probability.shape == self.threshold.shape == (count,), "results", count)
        inside = (self.probability >= 0) & (self.probability <= 1)
        require(bool(inside.all()), "results' probability", self.probability.tolist())
        require(set(self.maps.findings) <= set(self.findings), "results' maps", self.maps.findings)
        require(len(self.maps.image) == 1, "results' maps", len(self.maps.image))


class _Source(NamedTuple):
    """A film: its header, its shown grey, and the maps on the pixels of its file."""

    header: Dataset
    grey: UInt8[np.ndarray, "h w"]
    mirrored: bool
    share: dict[str, Float32[np.ndarray, "h w"]]  # of each map's own range


def results_of(
    films: Sequence[Path], model: Model, *, method: str = "grad-cam"
) -> dict[Path, Results]:
    """Return the results of DICOM films by a loaded model.

    Heat maps are of the findings that reach their thresholds; `method` "none" makes none. Raises
    ValueError for a film that is not a readable DICOM file, and for a method that the model lacks.
    """
    if method not in ("none", *EXPLAIN_METHODS):
        from lucency.explain.methods.registry import check_methods  # loads torch

        check_methods([method])
    found = dict[Path, Results]()
    for film in films:
        content = film.read_bytes() if film.is_file() else b""
        if not is_dicom(content):
            kind = "a folder" if film.is_dir() else "no such file"
            kind = "not a DICOM file" if film.is_file() else kind
            raise ValueError(f"{film}: {kind}; expected DICOM films, each by its name")
        probability = model.predict(film).probability[0]
        pairs = zip(model.findings, probability >= model.threshold, strict=True)
        called = tuple(finding for finding, reached in pairs if reached)
        if method == "none" or not called:
            maps = _no_maps(str(film))
        else:
            maps = model.explain(film, method=method, findings=called).maps
        found[film] = Results(
            findings=model.findings,
            probability=probability,
            threshold=model.threshold,
            maps=maps,
            film=fingerprint_content(content),
        )
    return found


def algorithm_of(model: Model) -> Algorithm:
    """Return what names a model: its fingerprint is that of the files that it predicts with."""
    about = about_model(model)
    return Algorithm(f"{MAKER} {about.name}", version("lucency"), about.fingerprint)


def write_results(
    results: Mapping[Path, Results],
    *,
    algorithm: Algorithm,
    out: Path,
    segmentation: str = "BINARY",
) -> list[Path]:
    """Write the DICOM objects of films to a folder of their own, which is complete or absent.

    There, for the first film: 0001-sr.dcm, 0001-seg.dcm (where it has heat maps) and
    0001-overlay.dcm. The same request finds its folder made. `segmentation` is one of
    SEGMENTATIONS. Raises ValueError for a film that is no DICOM film, states no UIDs or changed
    since it was predicted, a folder inside a run, another segmentation, where highdicom is absent,
    and as `produce_answer` does.
    """
    refuse_run(out)
    contents = [film.read_bytes() for film in results]
    films = [fingerprint_content(content) for content in contents]
    for film, now in zip(results, films, strict=True):
        if results[film].film not in ("", now):
            raise ValueError(f"{film} changed while it was predicted: give the command again")
    inputs = {
        "films": films,
        "algorithm": algorithm._asdict(),
        "segmentation": segmentation,
        "results": [_digest(one) for one in results.values()],
    }
    pairs = list(zip(contents, results.values(), strict=True))
    write = partial(_write_all, pairs, algorithm, segmentation)
    made = produce_answer(out, inputs=inputs, write=write)
    return sorted(made.glob("*.dcm"))


def result_objects(
    content: bytes, results: Results, *, algorithm: Algorithm, segmentation: str = "BINARY"
) -> dict[str, Dataset]:
    """Return the DICOM objects of one film's content by the kind in their files' names.

    Raises ValueError as `write_results` does.
    """
    if segmentation not in SEGMENTATIONS:
        expected = " or ".join(SEGMENTATIONS)
        raise ValueError(f"segmentation: found {segmentation!r}, expected {expected}")
    need_highdicom()
    source = _read(content, results)
    with quiet_pydicom():
        made = {"sr": _report(source, results, algorithm)}
        if source.share:
            made["seg"] = _segmentation(source, results, algorithm, segmentation)
        made["overlay"] = _capture(source, results, algorithm)
        for one in made.values():
            for name in PATIENT_AND_STUDY:
                if name in source.header:
                    one[name] = source.header[name]
    return made


def _write_all(
    pairs: Sequence[tuple[bytes, Results]], algorithm: Algorithm, segmentation: str, folder: Path
) -> None:
    from io import BytesIO

    for number, (content, results) in enumerate(pairs, start=1):
        objects = result_objects(content, results, algorithm=algorithm, segmentation=segmentation)
        for kind, made in objects.items():
            held = BytesIO()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made.save_as(held, enforce_file_format=True)
            write_whole(folder / f"{number:04d}-{kind}.dcm", held.getvalue())


def need_highdicom() -> None:
    """Raise ValueError unless what writes DICOM objects is installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "DICOM results need pip install 'lucency[dicom-out]', which has highdicom for Python "
            "3.11 to 3.13 only"
        ) from error


def refuse_run(out: Path) -> None:
    """Raise ValueError for a place inside a run, which is to hold no patient's name."""
    for place in (out, *out.resolve().parents):
        if (place / "protocol.toml").is_file():
            raise ValueError(f"{place} holds a run: results hold patients' names, choose another")


def _digest(results: Results) -> str:
    digest = hashlib.sha256(json.dumps([results.findings, results.maps.findings]).encode())
    for array in (results.probability, results.threshold, results.maps.grid):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _no_maps(name: str) -> Heatmaps:
    return Heatmaps(
        method="none",
        findings=(),
        image=np.array([name]),
        patient=np.full(1, -1),
        grid=np.zeros((1, 0, 1, 1), dtype=np.float32),
        centres=even_centres((1, 1)),
    )


def _read(content: bytes, results: Results) -> _Source:
    import pydicom
    from pydicom.filebase import DicomBytesIO

    film = decode_dicom_deep(content)
    grey = eight_bits(film)
    names = [*UIDS, *SHAPE, *PATIENT_AND_STUDY, "PatientOrientation"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(DicomBytesIO(content), specific_tags=names)
    lost = [name for name in UIDS if not header.get(name)]
    if lost:
        raise ValueError(f"the film has no {', '.join(lost)}: results cannot refer to it")
    shares, maps = dict[str, Float32[np.ndarray, "h w"]](), results.maps
    down, across = (
        blend(centre, frame=side) for centre, side in zip(maps.centres, grey.shape, strict=True)
    )
    for finding, cells in zip(maps.findings, maps.grid[0], strict=True):
        low, spread = cells.min(), np.ptp(cells)
        if spread > 0:  # a map that is the same everywhere shows no place
            large = down @ ((cells - low) / spread) @ across.T
            shares[finding] = np.clip(large[:, ::-1] if film.mirrored else large, 0, 1)
    return _Source(header, grey, film.mirrored, shares)


def _anonymous(source: _Source) -> Dataset:
    """Return the header without patient: highdicom would write names that it doubts to a log."""
    from pydicom.dataset import Dataset

    plain = Dataset()
    for name in (*UIDS, *SHAPE):
        plain[name] = source.header[name]
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID"):
        setattr(plain, name, "")
    for name in ("AccessionNumber", "StudyDate", "StudyTime", "ReferringPhysicianName"):
        setattr(plain, name, "")
    return plain


def _code(finding: str) -> Code:
    """Return the code of a finding; where CODES has none, one of the private scheme."""
    from pydicom.sr.coding import Code

    if finding in CODES:
        return Code(*CODES[finding])
    digest = hashlib.sha256(finding.casefold().encode()).hexdigest()[:8]
    return Code(f"F-{digest}", SCHEME, _shown(finding))


def _own(value: str, meaning: str) -> Code:
    from pydicom.sr.coding import Code

    return Code(value, SCHEME, meaning)


def _plain(text: str) -> str:
    """Return a text as the shortest of DICOM's texts hold it, in every character set."""
    return text.encode("ascii", "replace").decode().replace("\\", "/")[:64]


def _shown(finding: str) -> str:
    return _plain(finding.replace("_", " "))


def _about(algorithm: Algorithm, kind: str, number: int) -> dict[str, Any]:
    """Return what highdicom asks of every object."""
    from pydicom.uid import generate_uid

    return {
        "series_instance_uid": generate_uid(),
        "series_number": SERIES + number,
        "sop_instance_uid": generate_uid(),
        "instance_number": 1,
        "manufacturer": MAKER,
        "manufacturer_model_name": _plain(algorithm.name),
        "software_versions": _plain(algorithm.version),
        "device_serial_number": _plain(algorithm.fingerprint),
        "series_description": f"{kind} - {RESEARCH}",
    }


def _report(source: _Source, results: Results, algorithm: Algorithm) -> Dataset:
    """Return the Comprehensive SR: a measurement group a finding."""
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    evidence = _anonymous(source)
    observer = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
            uid=generate_uid(), manufacturer_name=MAKER, model_name=_plain(algorithm.name)
        ),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=codes.SCT.PlainRadiography,
        imaging_measurements=[
            _group(number, source, results, algorithm) for number in range(len(results.findings))
        ],
    )
    content[0].ContentSequence.append(
        hd.sr.TextContentItem(
            name=codes.DCM.Comment,
            value=RESEARCH_TEXT,
            relationship_type=hd.sr.RelationshipTypeValues.CONTAINS,
        )
    )
    return hd.sr.ComprehensiveSR(
        evidence=[evidence], content=content, is_complete=True, **_about(algorithm, "Findings", 0)
    )


def _group(number: int, source: _Source, results: Results, algorithm: Algorithm) -> Any:
    """Return a finding's measurement group, with the box of its heat map where it has one."""
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    finding, evidence = results.findings[number], _anonymous(source)
    probability, threshold = results.probability[number], results.threshold[number]
    values = {
        codes.DCM.Probability: probability,
        _own("THRESHOLD", "Threshold of the probability"): threshold,
    }
    present = codes.SCT.Present if probability >= threshold else codes.SCT.Absent
    shared = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=generate_uid(), identifier=_plain(finding)
        ),
        "finding_type": _code(finding),
        "algorithm_id": hd.sr.AlgorithmIdentification(
            name=algorithm.name,
            version=algorithm.version,
            parameters=[f"fingerprint={algorithm.fingerprint}", RESEARCH_TEXT],
            family=codes.cid7162.ArtificialIntelligence,
            manufacturer=MAKER,
        ),
        "measurements": [
            hd.sr.Measurement(name=name, value=round(float(value), 6), unit=codes.UCUM.NoUnits)
            for name, value in values.items()
        ],
        "qualitative_evaluations": [
            hd.sr.QualitativeEvaluation(
                name=_own("PRESENCE", "Presence by the threshold"), value=present
            )
        ],
    }
    if finding not in source.share:
        film = hd.sr.SourceImageForMeasurementGroup.from_source_image(evidence)
        return hd.sr.MeasurementsAndQualitativeEvaluations(**shared, source_images=[film])
    left, top, right, bottom = _box(source.share[finding])
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array(corners, dtype=np.float64),
        source_image=hd.sr.SourceImageForRegion.from_source_image(evidence),
    )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(**shared, referenced_region=region)


def _box(share: Float32[np.ndarray, "h w"]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the region that holds a map's greatest value."""
    _, parts = cv2.connectedComponents((share > LEVEL).astype(np.uint8), connectivity=8)
    rows, columns = np.nonzero(parts == parts.flat[int(share.argmax())])
    return (
        int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1
    )  # fmt: skip


def _segmentation(
    source: _Source, results: Results, algorithm: Algorithm, segmentation: str
) -> Dataset:
    """Return the heat maps as segments: above LEVEL, or as shares of their range."""
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

    known = hd.AlgorithmIdentificationSequence(
        name=_plain(algorithm.name),
        family=codes.cid7162.ArtificialIntelligence,
        version=_plain(algorithm.version),
        source=MAKER,
        parameters={"fingerprint": algorithm.fingerprint, "method": results.maps.method},
    )
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=_shown(finding),
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=_code(finding),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=known,
        )
        for number, finding in enumerate(source.share, start=1)
    ]
    share = np.stack(list(source.share.values()), axis=-1)[None]
    binary = segmentation == "BINARY"
    return hd.seg.Segmentation(
        source_images=[_anonymous(source)],
        pixel_array=(share > LEVEL).astype(np.uint8) if binary else share,
        segmentation_type=segmentation,
        segment_descriptions=segments,
        content_description=f"Heat maps. {RESEARCH}",
        content_label="HEATMAPS",
        transfer_syntax_uid=ExplicitVRLittleEndian if binary else JPEG2000Lossless,
        omit_empty_frames=False,
        **_about(algorithm, "Heat maps", 1),
    )


def _capture(source: _Source, results: Results, algorithm: Algorithm) -> Dataset:
    """Return the film with regions and boxes drawn in, and probabilities below it."""
    import highdicom as hd
    from pydicom.dataset import Dataset
    from pydicom.uid import ExplicitVRLittleEndian

    stated = [str(word) for word in source.header.get("PatientOrientation") or []]
    shown = ["L", *stated[1:]] if source.mirrored else stated
    made = hd.sc.SCImage.from_ref_dataset(
        _anonymous(source),
        pixel_array=draw_overlay(source.grey, source.mirrored, source.share, results, algorithm),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **_about(algorithm, "Overlay", 2),
    )
    made.add_new("PatientOrientation", "CS", shown)  # empty where the film states none
    made.ConversionType = "WSD"
    made.BurnedInAnnotation = "YES"
    made.DerivationDescription = f"Heat maps of {_plain(algorithm.name)}. {RESEARCH_TEXT}"
    film = Dataset()
    film.ReferencedSOPClassUID = source.header.SOPClassUID
    film.ReferencedSOPInstanceUID = source.header.SOPInstanceUID
    made.SourceImageSequence = [film]
    return made


def draw_overlay(
    grey: UInt8[np.ndarray, "h w"],
    mirrored: bool,
    share: Mapping[str, Float32[np.ndarray, "h w"]],
    results: Results,
    algorithm: Algorithm,
) -> UInt8[np.ndarray, "y x 3"]:
    """Return the film as it is shown, with outlines and boxes of its maps, and words below it."""
    factor = min(1.0, LONGEST_SIDE / max(grey.shape))
    size = tuple(max(1, round(side * factor)) for side in grey.shape[::-1])
    picture = cv2.cvtColor(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(share)}
    for finding, colour in colours.items():
        shown = share[finding][:, ::-1] if mirrored else share[finding]
        small = cv2.resize(np.ascontiguousarray(shown), size, interpolation=cv2.INTER_AREA)
        outline, _ = cv2.findContours(
            (small > LEVEL).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(picture, outline, -1, colour, 1, cv2.LINE_AA)
        if outline:
            left, top, right, bottom = _box(small)
            cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), colour, 2)
    return np.vstack([picture, _words(results, algorithm, colours, size[0])])


def _words(
    results: Results,
    algorithm: Algorithm,
    colours: Mapping[str, tuple[int, int, int]],
    width: int,
) -> UInt8[np.ndarray, "y x 3"]:
    """Return a strip of black with the notice, what made the results, and the probabilities."""
    white, columns = (255, 255, 255), max(1, width // 320)
    by = f"{algorithm.name} {algorithm.version}: probability (threshold)"
    lines = [(RESEARCH, (255, 80, 80)), (by, white)]
    values = zip(results.findings, results.probability, results.threshold, strict=True)
    cells = [
        (f"{'+' if value >= least else '-'} {_shown(name)} {value:.2f} ({least:.2f})", name)
        for name, value, least in values
    ]
    rows, step = -(-len(cells) // columns), 22
    strip = np.zeros((step * (len(lines) + rows) + 12, width, 3), dtype=np.uint8)
    for row, (text, colour) in enumerate(lines):
        _write(strip, text, (8, step * (row + 1)), colour)
    for place, (text, name) in enumerate(cells):
        down, across = len(lines) + 1 + place % rows, place // rows
        _write(strip, text, (8 + across * width // columns, step * down), colours.get(name, white))
    return strip


def _write(
    strip: UInt8[np.ndarray, "y x 3"],
    text: str,
    place: tuple[int, int],
    colour: tuple[int, int, int],
) -> None:
    font, plain = cv2.FONT_HERSHEY_SIMPLEX, _plain(text)
    cv2.putText(strip, plain, place, font, 0.5, colour, 1, cv2.LINE_AA)

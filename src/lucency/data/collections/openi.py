"""OpenI (Indiana University): reports in XML whose MeSH headings are the labels of their films.

Demner-Fushman et al., J. Am. Med. Inform. Assoc. 2016. Letters in shapes: n films, k findings,
r reports.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import pandas as pd
from jaxtyping import Float32, Shaped

from lucency.core.files import why_no_file
from lucency.core.manifest import Manifest, empty_boxes, listed, nearest
from lucency.data.collections.big_tables import read_columns
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.label_cells import refuse_twice
from lucency.data.collections.label_columns import (
    first_file,
    origin_of,
    reading_of,
    say_short,
)
from lucency.data.csv_tables import parse_whole

TITLE = "OpenI"
REPORTS = ("NLMCXR_reports.tgz", "NLMCXR_reports.tar.gz", "ecgen-radiology/*.xml")
FOLDERS = ("ecgen-radiology", "NLMCXR_reports/ecgen-radiology", "NLMCXR_reports", ".")
JUDGED, HEADERS = "nlmcxr_tsne_pa.csv*", "nlmcxr_dicom_metadata.csv*"
DICOM_FILMS = ("*_IM-*.dcm", "*/*_IM-*.dcm", "*/*/*_IM-*.dcm")
MOST_BYTES = 2**20  # of a report; the longest published has a hundredth
MOST_REPORTS = 100_000
LOST = (KeyError, RecursionError)  # of links in an archive to what is not there, and to themselves
UNREAD = ("No Indexing", "Technical Quality of Image Unsatisfactory")  # what is absent is unknown
NORMAL_REPORT = "normal"
PLEURA = "Thickening/pleura"  # Thickening without it is of bronchi, fissures, the heart
VIEWS_JUDGED = {"L": "LATERAL"}


class Report(NamedTuple):
    """A report: where it is, its number, headings whole ("Nodule/lung/left"), and its films."""

    where: str
    number: int
    headings: tuple[str, ...]
    films: tuple[str, ...]


def read_openi(root: Path, labels: str) -> Manifest:
    """Return OpenI's films with the major headings as findings, as `PublicCollection.read` does.

    Reports are read from the .tgz or from a folder. A heading counts by its first part, exactly. A
    report's labels are those of all of its films; what a report of UNREAD does not name is NaN,
    and so is normal where it does: its films have no absence of findings.
    A patient is a report's number: one study a patient, as published. Facts: study, view (judged
    from the picture where that table lies in `root`, else of the DICOM header where that does).
    Raises ValueError for a heading that OpenI does not have, and for a report that is no XML.
    """
    place = _reports_place(root, labels)
    reports = read_reports(place)
    if not labels:
        say_short(place.name, len(reports), published=3_955, noun="reports")
    filmed = [report for report in reports if report.films]
    by_report = _labels_of(filmed)
    count = [len(report.films) for report in filmed]
    names = np.array([film for report in filmed for film in report.films], dtype=object)
    number = np.repeat(np.array([report.number for report in filmed], dtype=np.int64), count)
    view, steps = _views(root, names)
    label = np.repeat(by_report, count, axis=0)
    unread = np.isnan(by_report).any(axis=1)
    films = Manifest(
        findings=FINDINGS_OF_OPENI,
        image=_file_names(root, names),
        patient=number,
        label=label,
        facts=pd.DataFrame(
            {"study": number.astype(str), "view": view, "path": np.full(len(names), "")}
        ),
        boxes=empty_boxes(),
        origin="",
        reading=reading_of(
            ("reports without a film", "", len(reports) - len(filmed)),
            (f"not stated: {' or '.join(UNREAD)}", "", int(np.repeat(unread, count).sum())),
            *steps,
        ),
    )
    origin = origin_of(films, file=place, title=TITLE, published=PUBLISHED_OPENI)
    return replace(films, origin=origin)


def _reports_place(root: Path, labels: str) -> Path:
    """Return the archive or the folder of reports."""
    if labels:
        place = root / labels
        if not (place.is_file() or place.is_dir()):
            raise ValueError(f"{place}: {why_no_file(place)}; expected {TITLE}'s reports")
        return place
    if archive := first_file(root, *REPORTS[:2]):
        return archive
    for folder in (root / name for name in FOLDERS):
        if first_file(folder, "[0-9]*.xml"):
            return folder
    there = sorted(one.name for one in root.iterdir()) if root.is_dir() else []
    raise ValueError(
        f"no reports of {TITLE} in {root}: expected {REPORTS[0]} or the folder ecgen-radiology, "
        f"found {listed(there, most=6) or 'nothing'}"
    )


def read_reports(place: Path) -> list[Report]:
    """Return the reports of a .tgz or of a folder of XML files by number, those without films too.

    Raises ValueError where there is none, and for one that is no report or is there twice.
    """
    found, holder = dict[int, Report](), dict[int, str]()
    for name, content in _folder(place) if place.is_dir() else _archive(place):
        report = _parse_report(content, where=f"{place}: {name}")
        if report.number in found:
            raise ValueError(
                f"{place}: report {report.number} is in {holder[report.number]} and in {name}; "
                "expected each once: leave one of them out"
            )
        found[report.number], holder[report.number] = report, name
    if not found:
        raise ValueError(f"{place}: found no report; expected {TITLE}'s, such as 1.xml")
    return [found[number] for number in sorted(found)]


def _folder(place: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(place.glob("*.xml")):
        if not file.is_file():  # reading a pipe would wait for its other end
            raise ValueError(f"{place}: {file.name}: {why_no_file(file)}; expected a report")
        _refuse_long(f"{place}: {file.name}", file.stat().st_size)
        yield file.name, file.read_bytes()


def _archive(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the XML files of an archive; nothing is unpacked to disk."""
    try:
        with tarfile.open(place) as archive:
            for count, member in enumerate(archive):
                if count > MOST_REPORTS:
                    raise ValueError(f"{place}: found more than {MOST_REPORTS:,} files")
                held = archive.extractfile(member) if member.name.endswith(".xml") else None
                if held:
                    _refuse_long(f"{place}: {member.name}", member.size)
                    yield member.name, held.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, *LOST) as error:
        raise ValueError(
            f"{place}: found no whole archive ({error}); expected {TITLE}'s reports: fetch it again"
        ) from error


def _refuse_long(where: str, size: int) -> None:
    if size > MOST_BYTES:
        raise ValueError(f"{where}: found {size:,} bytes, expected a report of a few thousand")


def _parse_report(content: bytes, *, where: str) -> Report:
    """Return what a report's XML states; a file that declares entities is refused."""

    def refuse(*_: object) -> None:
        raise ValueError(f"{where}: found a declaration of entities; expected a report without")

    parser = expat.ParserCreate()
    parser.EntityDeclHandler = refuse  # which comes before an entity could be expanded
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError) as error:  # the latter of an unknown encoding
        raise ValueError(
            f"{where}: found no XML ({error}); expected a report: fetch it again"
        ) from error
    report = ElementTree.fromstring(content)
    return _report_of(
        [one.get("id", "") for one in report.iter("uId")],
        [one.text or "" for one in report.iterfind("MeSH/major")],
        [one.get("id", "") for one in report.iter("parentImage")],
        where=where,
    )


def _report_of(number: list[str], headings: list[str], films: list[str], *, where: str) -> Report:
    known = re.fullmatch(r"CXR([0-9]{1,9})", number[0]) if len(number) == 1 else None
    if not known or not all(film.startswith(f"{known[0]}_") for film in films):
        raise ValueError(f"{where}: found no report of {TITLE}: expected one uId such as CXR1")
    return Report(where, parse_whole(known[1]), tuple(headings), tuple(films))


def _labels_of(reports: list[Report]) -> Float32[np.ndarray, "r k"]:
    """Return the labels of reports."""
    label = np.zeros((len(reports), len(FINDINGS_OF_OPENI)), dtype=np.float32)
    unread = {one.casefold() for one in UNREAD}
    for row, report in enumerate(reports):
        named = {plain_heading(heading) for heading in report.headings}
        pleural = any(_has_pleura(heading) for heading in report.headings)
        is_unread = not named or bool(named & unread)
        if is_unread:
            label[row] = np.nan
        for heading in named - unread:
            if heading not in PLACE_OF_HEADING:
                raise ValueError(
                    f"{report.where}: found the heading {heading!r}, none of "
                    f"{TITLE}{nearest(heading, FINDINGS_OF_OPENI)}: expected its reports as "
                    "published"
                )
            if not (is_unread and heading == NORMAL_REPORT):  # from which zeros would be made
                label[row, PLACE_OF_HEADING[heading]] = 1
        if pleural:
            label[row, PLACE_OF_HEADING[PLEURA.casefold()]] = 1
    return label


def plain_heading(heading: str) -> str:
    """Return the first part of a heading in small letters, with single blanks.

    >>> plain_heading("Technical Quality of Image Unsatisfactory "), plain_heading("Mass/lung")
    ('technical quality of image unsatisfactory', 'mass')
    """
    return " ".join(heading.partition("/")[0].split()).casefold()


def _has_pleura(heading: str) -> bool:
    return [part.strip().casefold() for part in heading.split("/")][:2] == PLEURA.casefold().split(
        "/"
    )


def _views(
    root: Path, names: Shaped[np.ndarray, " n"]
) -> tuple[Shaped[np.ndarray, " n"], list[tuple[str, str, int]]]:
    """Return each film's view, "" unknown, and from where how many have it."""
    judged = _column(first_file(root, JUDGED), "tsne-view", names)
    header = _column(first_file(root, HEADERS), "View Position", names)
    judged = np.array([VIEWS_JUDGED.get(view, view) for view in judged], dtype=object)
    is_judged, is_stated = judged != "", header != ""
    view = np.where(is_judged, judged, header)
    frontal = np.isin(header, ("PA", "AP"))
    apart = is_judged & is_stated & (frontal != (judged == "PA"))
    return view, [
        ("view: judged from the picture", "", int(is_judged.sum())),
        ("view: of the DICOM header", "", int((is_stated & ~is_judged).sum())),
        ("view: the header contradicts the picture", "", int(apart.sum())),
    ]


def _column(
    file: Path | None, column: str, names: Shaped[np.ndarray, " n"]
) -> Shaped[np.ndarray, " n"]:
    """Return a column of a table of films in capitals, "" where there is none."""
    if not file:
        return np.full(len(names), "", dtype=object)
    table = read_columns(file, "imageid", column, title=f"{TITLE}'s views")
    refuse_twice(table, "imageid")
    known = pd.Series(table.columns[column], index=table.columns["imageid"]).str.upper()
    return known.reindex(names).fillna("").to_numpy(dtype=object)


def _file_names(root: Path, names: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """Return films as files call them: CXR1_1_IM-0001-3001 as PNG, 1_IM-0001-3001 as DICOM."""
    if not first_file(root, *DICOM_FILMS):
        return names.astype(str)
    return np.array([re.sub(r"^CXR(\d+)_(\1_)?", r"\1_", name) for name in names.tolist()])


FINDINGS_OF_OPENI = (
    "Abdomen", "Adipose Tissue", "Airspace Disease", "Aorta", "Aorta, Thoracic", "Aortic Aneurysm",
    "Arthritis", "Atherosclerosis", "Blister", "Blood Vessels", "Bone and Bones",
    "Bone Diseases, Metabolic", "Breast Implants", "Bronchiectasis", "Bronchiolitis", "Bronchitis",
    "Bullous Emphysema", "Calcified Granuloma", "Calcinosis", "Cardiac Shadow", "Cardiomegaly",
    "Catheters, Indwelling", "Cavitation", "Cervical Vertebrae", "Cholelithiasis", "Cicatrix",
    "Colonic Interposition", "Consolidation", "Contrast Media", "Costophrenic Angle",
    "Cystic Fibrosis", "Cysts", "Deformity", "Density", "Diaphragm", "Diaphragmatic Eventration",
    "Dislocations", "Emphysema", "Epicardial Fat", "Expansile Bone Lesions", "Fibrosis",
    "Foreign Bodies", "Fractures, Bone", "Funnel Chest", "Granuloma", "Granulomatous Disease",
    "Heart", "Heart Atria", "Heart Failure", "Heart Ventricles", "Hemopneumothorax", "Hemothorax",
    "Hernia, Diaphragmatic", "Hernia, Hiatal", "Humerus", "Hydropneumothorax",
    "Hyperostosis, Diffuse Idiopathic Skeletal", "Hypertension, Pulmonary", "Hypovolemia",
    "Implanted Medical Device", "Infiltrate", "Kyphosis", "Lucency", "Lumbar Vertebrae", "Lung",
    "Lung Diseases, Interstitial", "Lung, Hyperlucent", "Lymph Nodes", "Markings", "Mass",
    "Mastectomy", "Mediastinal Emphysema", "Mediastinum", "Medical Device", "Nipple Shadow",
    "Nodule", "normal", "Opacity", "Osteophyte", "Osteoporosis", "Pectus Carinatum",
    "Pericardial Effusion", "Pleura", "Pleural Effusion", "Pneumonectomy", "Pneumonia",
    "Pneumoperitoneum", "Pneumothorax", "Pulmonary Artery", "Pulmonary Atelectasis",
    "Pulmonary Congestion", "Pulmonary Disease, Chronic Obstructive", "Pulmonary Edema",
    "Pulmonary Emphysema", "Pulmonary Fibrosis", "Ribs", "Sarcoidosis", "Sclerosis", "Scoliosis",
    "Shift", "Shoulder", "Spinal Fusion", "Spine", "Spondylosis", "Stents",
    "Subcutaneous Emphysema", "Sulcus", "Surgical Instruments", "Sutures", "Thickening",
    "Thickening/pleura", "Thoracic Vertebrae", "Thorax", "Trachea", "Trachea, Carina",
    "Tube, Inserted", "Tuberculosis", "Volume Loss",
)  # fmt: skip
PLACE_OF_HEADING = {name.casefold(): place for place, name in enumerate(FINDINGS_OF_OPENI)}
PUBLISHED_OPENI = {  # of films; 3,851 reports have films
    "films": 7_470, "patients": 3_851, "studies": 3_851,
}  # fmt: skip
OPENI = PublicCollection(
    title=TITLE,
    read=read_openi,
    findings=FINDINGS_OF_OPENI,
    align={
        "Pulmonary Atelectasis": "Atelectasis",
        "Pulmonary Edema": "Edema",
        "Pleural Effusion": "Effusion",
        "Pulmonary Emphysema": "Emphysema",
        "Pulmonary Fibrosis": "Fibrosis",
        "Fibrosis": "",
        "Hernia, Hiatal": "Hernia",
        "Infiltrate": "Infiltration",
        PLEURA: "Pleural_Thickening",
        NORMAL_REPORT: "No Finding",
    },
    no_finding=NORMAL_REPORT,
    tables=(*REPORTS, "*.xml", "NLMCXR_reports/*.xml", "NLMCXR_reports/*/*.xml", JUDGED, HEADERS),
    published=PUBLISHED_OPENI,
    traps=(
        "labels are of reports, the same for a frontal film and its lateral",
        "there is no sex and no age; a patient is a report's number",
        "No Indexing and unsatisfactory quality (written with a blank at its end) state no absence",
        "Thickening is pleural only where /pleura follows",
        "the view of DICOM headers is noisy: 180 of 2,174 called PA were judged lateral",
    ),
)

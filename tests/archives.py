"""Archives of DICOM films made here: whole ones, and films that hold a mark in every text."""

import struct
import warnings
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_films import dicom_bytes, header, phantom_grey, stored_for, written

MARK = "QZXMARK"
TEXT = {  # value representations that hold text (PS3.5, 6.2)
    "AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR",
    "UT",
}  # fmt: skip
PICTURE = {  # that decide whether a file is a film of the chest, and how it is shown
    "SOPClassUID", "SpecificCharacterSet", "PhotometricInterpretation", "PresentationIntentType",
    "BodyPartExamined", "NumberOfFrames", "WindowCenter", "WindowWidth", "RescaleIntercept",
    "RescaleSlope", "VOILUTFunction", "Modality",
}  # fmt: skip


def archive_film(number: int, **elements: Any) -> bytes:
    """Return a film like no other; patients have three films, of a study each."""
    grey = phantom_grey().copy()
    grey[:8, :8] = 20 * (number % 12)
    named = {
        "PatientID": f"P{number // 3}", "StudyInstanceUID": f"1.2.{number}",
        "SOPInstanceUID": f"1.2.{number}.1", "StudyDate": f"202001{1 + number % 28:02d}",
    }  # fmt: skip
    with disable_value_validation():
        return dicom_bytes(stored_for(grey), **named | elements)


def marked_film(number: int, *, without: frozenset[str] = frozenset(PICTURE)) -> bytes:
    """Return a film with MARK in every text of the data dictionary, but elements `without`."""
    content = _marked(without)
    for kind, named in {"P": number // 3, "S": number // 2, "F": number}.items():
        content = content.replace(f"{MARK}{kind}0000".encode(), f"{MARK}{kind}{named:04d}".encode())
    grey = phantom_grey().copy()
    grey[:8, :8] = 20 * (number % 12)
    pixels = stored_for(grey).astype("<i2").tobytes()
    return content[: -len(pixels)] + pixels


@cache
def _marked(without: frozenset[str]) -> bytes:
    made, grey = header(), phantom_grey()
    made.Rows, made.Columns = grey.shape
    made.HighBit = 11
    made.PixelData = stored_for(grey).astype("<i2").tobytes()
    made["PixelData"].VR = "OW"
    with disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mark_texts(made, without=without)
        return MARK.encode().ljust(128, b"Q") + written(made)[128:]


def mark_texts(made: Dataset, *, without: frozenset[str]) -> None:
    """Put MARK into every text element, into items of every sequence, and into private elements."""
    names = {keyword: MARK for _, _, _, _, keyword in DicomDictionary.values()}
    kinds = {"PatientID": "P", "StudyInstanceUID": "S", "SOPInstanceUID": "F"}
    names |= {keyword: f"{MARK}{kind}0000" for keyword, kind in kinds.items()}
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        place = Tag(tag)
        if place.group <= 2 or keyword in without or place.group == 0xFFFC:
            continue
        if vr in TEXT:
            made[place] = raw_text(place, vr, names[keyword])
        elif vr == "SQ" and keyword not in ("ModalityLUTSequence", "VOILUTSequence"):
            made.add_new(place, "SQ", [marked_item(2)])
    for element, vr in enumerate(("LO", "UT", "PN", "UN"), start=0x1001):
        made[0x0019, element] = raw_text(Tag(0x0019, element), vr, MARK)
    made[0x0019, 0x0010] = raw_text(Tag(0x0019, 0x0010), "LO", MARK)


def marked_item(depth: int) -> Dataset:
    """Return an item of a sequence with text, and an item within it."""
    item = Dataset()
    for name, vr in (("CodeValue", "SH"), ("CodeMeaning", "LO"), ("PatientName", "PN")):
        item[name] = raw_text(Tag(name), vr, MARK)
    if depth:
        item.add_new("ConceptCodeSequence", "SQ", [marked_item(depth - 1)])
    return item


def raw_text(tag: Any, vr: str, value: str) -> RawDataElement:
    content = value.encode() + b" " * (len(value) % 2)
    return RawDataElement(tag, vr, len(content), content, 0, False, True)


def write_archive(root: Path, films: int, **elements: Any) -> None:
    """Write films without suffixes in folders of patients."""
    for number in range(films):
        folder = root / f"patient{number // 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"IM{number}").write_bytes(archive_film(number, **elements))


def deflate_bomb(beyond: int) -> bytes:
    """Return a DICOM file of some kB that inflates to `beyond` MiB of one private element."""
    film = dicom_bytes(np.zeros((4, 4), int), syntax=DeflatedExplicitVRLittleEndian)
    end = 144 + struct.unpack_from("<I", film, 140)[0]
    packer = zlib.compressobj(level=1, wbits=-zlib.MAX_WBITS)
    whole = packer.compress(struct.pack("<HH2sHI", 9, 0x1001, b"OB", 0, beyond << 20))
    block = bytes(1 << 20)
    whole += b"".join(packer.compress(block) for _ in range(beyond))
    return film[:end] + whole + packer.flush()

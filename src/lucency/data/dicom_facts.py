"""Facts of DICOM films by an allow-list: what of a header may be known of a film, and nothing else.

Only the elements of READ are read, and no pixels. Patient, study and film leave this file as
pseudonyms, dates as days, and text as one of the words that are listed here: what else a header
holds, and whatever somebody wrote into an element for a word, is in nothing that is returned.
Which element states what: DICOM PS3.3 C.7 and C.8.7, C.8.11, and PS3.6.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import zlib
from collections.abc import Iterable
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lucency.core.manifest import OLDEST
from lucency.data.dicom import (
    BROKEN,
    CHEST,
    ITEM,
    MAGIC,
    MOST_ITEMS,
    MOST_READS,
    PREAMBLE,
    SECONDARY,
    STORAGE,
    why_left_out,
)
from lucency.data.dicom_elements import items, numbers, quiet_pydicom, text
from lucency.data.pseudonyms import PseudonymKey

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MOST_READ = 1 << 24  # bytes of a header; real ones have a hundredth of it
MOST_OF_ONE = 1 << 16  # bytes of an element of READ
BLOCK = 1 << 20
UNDEFINED, ITEMS_END = 0xFFFFFFFF, 0xE0DDFFFE  # of encapsulated pixels (PS3.5 A.4)
PIXELS = (0x7FE0, 0x0010)
NOT_DICOM = "no DICOM file"
DAMAGED = "damaged: its DICOM elements cannot be read"
ABSURD = (
    f"absurd size: its header has more than {MOST_READ >> 20} MiB, {MOST_READS:,} elements, or "
    f"{MOST_ITEMS:,} items of sequences"
)
NO_FILE = "cannot be read: a pipe or a device, expected a file"
TRUNCATED = "truncated: the DICOM file ends in its pixels"
UNKNOWN, OTHER = "", "other"
READ = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "IssuerOfPatientID",
    "Modality", "PresentationIntentType", "BodyPartExamined", "PatientOrientation",
    "ViewPosition", "ViewCodeSequence", "PatientOrientationCodeSequence", "SeriesDescription",
    "ProtocolName", "PatientAge", "PatientBirthDate", "StudyDate", "AcquisitionDate",
    "PatientSex", "Manufacturer", "ManufacturerModelName", "BurnedInAnnotation", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel", "NumberOfFrames",
    "PhotometricInterpretation", "PixelSpacing", "ImagerPixelSpacing",
    "EstimatedRadiographicMagnificationFactor", "PatientIdentityRemoved",
)  # fmt: skip
VIEWS = (
    "PA", "AP", "LL", "RL", "LATERAL", "LLD", "RLD", "RLO", "LLO", "LPO", "RPO", "LAO", "RAO",
)  # fmt: skip
VIEW_WORDS = {  # in descriptions, in small letters
    "pa": "PA", "postero": "PA", "posteroanterior": "PA", "ap": "AP", "antero": "AP",
    "anteroposterior": "AP", "portable": "AP", "bedside": "AP", "mobile": "AP",
    "lateral": "LATERAL", "lat": "LATERAL",
}  # fmt: skip
POSTURES = {
    "erect": "erect", "upright": "erect", "standing": "erect", "recumbent": "recumbent",
    "supine": "recumbent", "prone": "recumbent", "semi-erect": "semi-erect",
}  # fmt: skip
KINDS = {f"{STORAGE}1": "CR", f"{STORAGE}1.1": "DX", SECONDARY: "SC"}
MODALITIES = (
    "CR", "DX", "RG", "OT", "MG", "CT", "MR", "US", "NM", "PT", "XA", "RF", "PX", "IO", "SC", "SR",
    "PR", "KO", "SEG", "DOC", "REG", "RTSTRUCT", "ES", "XC", "ECG", "BMD", "OCT", "HC",
)  # fmt: skip
BODY_PARTS = (
    "ABDOMEN", "ANKLE", "ARM", "BREAST", "CLAVICLE", "ELBOW", "EXTREMITY", "FEMUR", "FINGER",
    "FOOT", "FOREARM", "HAND", "HEAD", "HIP", "HUMERUS", "JAW", "KNEE", "LEG", "NECK", "PELVIS",
    "RIB", "SCAPULA", "SHOULDER", "SKULL", "SPINE", "STERNUM", "WRIST", "WHOLEBODY",
)  # fmt: skip
PHOTOMETRIC = (
    "MONOCHROME1", "MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT",
    "YBR_RCT", "YBR_PARTIAL_420",
)  # fmt: skip
MAKERS = {  # words of Manufacturer, in small letters -> its name here
    "agfa": "Agfa", "canon": "Canon", "carestream": "Carestream", "kodak": "Carestream",
    "del medical": "Del Medical", "dr tech": "DRTECH", "drtech": "DRTECH", "fuji": "Fujifilm",
    "ge ": "GE", "general electric": "GE", "hologic": "Hologic", "idc": "IDC",
    "imaging dynamics": "IDC", "konica": "Konica Minolta", "mindray": "Mindray",
    "philips": "Philips", "rayence": "Rayence", "samsung": "Samsung", "sedecal": "Sedecal",
    "shimadzu": "Shimadzu", "siemens": "Siemens", "swissray": "Swissray", "toshiba": "Toshiba",
    "trixell": "Trixell", "united imaging": "United Imaging", "varian": "Varian",
    "vieworks": "Vieworks", "villa": "Villa",
}  # fmt: skip
MODEL_DIGITS = 6  # of a model's pseudonym: a subgroup, not a name
AGE = re.compile(r"(\d{1,3})([DWMY])")
NO_AGE = "000Y"  # written where none is known; an infant's is in days, weeks or months
A_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
ANSWERS = ("YES", "NO")


class FilmHeader(NamedTuple):
    """What is known of one file of an archive; text is "" and a number NaN where it is not stated.

    `image`, `study` and `patient` are pseudonyms; `alike` is one of the PatientID's plain form,
    without its issuer, leading zeros and capitals. `day` is the study's, counted as by
    `date.toordinal`, 0 unknown: for differences alone. `age` is in years, and `doubtful_age` of an
    age that is stated and impossible. `width` and `height` are in pixels, `pixel_spacing` in mm in
    the patient where magnification is stated, else at the detector. `reason` says why the file is
    no film that a network may see, "" of one that is.
    """

    reason: str
    image: str = ""
    study: str = ""
    patient: str = ""
    alike: str = ""
    day: int = 0
    view: str = ""
    age: float = float("nan")
    doubtful_age: bool = False
    sex: str = ""
    posture: str = ""
    device: str = ""
    manufacturer: str = ""
    body_part: str = ""
    kind: str = ""
    modality: str = ""
    burned_in: str = ""
    deidentified: str = ""
    photometric: str = ""
    transfer_syntax: str = ""
    bits_stored: int = 0
    width: int = 0
    height: int = 0
    pixel_spacing: float = float("nan")


class _HeaderStream(io.BufferedReader):
    """A file of which no more is read, and inflated, for its header than a header may have.

    pydicom reads to the file's end in one case, a deflated one, and inflates it at once: it gets
    the beginning alone, packed again.
    """

    def __init__(self, raw: io.FileIO) -> None:
        super().__init__(raw)
        self.left, self.reads = MOST_READ, MOST_READS
        self.is_absurd = self.is_cut = self.has_pixels = self.is_deflated = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, none of an absurd header."""
        if size is None or size < 0:
            return self._deflated_head()
        self.left -= size
        self.reads -= 1
        self.is_absurd |= self.left < 0 or self.reads < 0
        return b"" if self.is_absurd else super().read(size)

    def _deflated_head(self) -> bytes:
        inflater, head, block = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), b" "
        while len(head) < MOST_READ and not inflater.eof and block:
            block = inflater.unconsumed_tail or super().read(BLOCK)
            head += inflater.decompress(block, MOST_READ - len(head))
        self.is_deflated, self.is_cut = True, not inflater.eof and len(head) < MOST_READ
        self.has_pixels = struct.pack("<HH", *PIXELS) in head
        endless = len(head) >= MOST_READ and not self.has_pixels
        self.is_absurd = endless or head.count(ITEM) > MOST_ITEMS
        if self.is_absurd:
            return b""
        packer = zlib.compressobj(0, zlib.DEFLATED, -zlib.MAX_WBITS)
        return packer.compress(head) + packer.flush()


def read_header(file: Path, *, key: PseudonymKey) -> FilmHeader:
    """Return what a file's header states by the allow-list; no value of an element is in a reason.

    At most 16 MiB of a file are read or inflated, whatever it is. An element that cannot be read
    counts as not stated. Raises ValueError where pydicom is absent.
    """
    try:
        found = file.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            return FilmHeader(reason=NO_FILE)  # opening a pipe would wait for its other end
        with _HeaderStream(io.FileIO(file)) as stream:
            if stream.read(PREAMBLE + len(MAGIC))[PREAMBLE:] != MAGIC:
                return FilmHeader(reason=NOT_DICOM)
            stream.seek(0)
            return _read(stream, found.st_size, key)
    except OSError as error:
        return FilmHeader(reason=f"cannot be read: {error.strerror}")


def _read(stream: _HeaderStream, size: int, key: PseudonymKey) -> FilmHeader:
    try:
        import pydicom
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError as error:
        raise ValueError("DICOM films: reading them needs pip install 'lucency[dicom]'") from error

    broken = (*BROKEN, BytesLengthException, InvalidDicomError)
    with quiet_pydicom():
        try:
            header = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=_tags_read())
            problem = _pixel_problem(stream, header, size)
        except broken:
            return FilmHeader(reason=ABSURD if stream.is_absurd else DAMAGED)
        for one in (header.file_meta, header):
            _convert(one, broken)
        if stream.has_pixels:
            header.PixelData = b""  # is there, and not read
        return _facts(header, key, why_left_out(header) or problem)


@cache
def _tags_read() -> list[Any]:
    """Return READ as numbers, which pydicom takes without looking each name up for each file."""
    from pydicom.tag import Tag

    return [Tag(name) for name in READ]


def _convert(header: Dataset, broken: tuple[type[Exception], ...]) -> None:
    """Convert the elements to values, as each is when it is first seen; drop those that are none.

    An element of an absurd size is none.
    """
    for tag in list(header.keys()):
        try:
            raw = header.get_item(tag).value
            if isinstance(raw, bytes) and len(raw) > MOST_OF_ONE:
                raise ValueError
            _ = header[tag].value
        except broken:
            del header[tag]


def _pixel_problem(stream: _HeaderStream, header: Dataset, size: int) -> str:
    """Return why the pixels behind a header are not whole, "" where they are or where are none."""
    if stream.is_absurd:
        raise ValueError
    if stream.is_deflated:
        return TRUNCATED if stream.is_cut else ""
    implicit, little = header.original_encoding
    start, order = stream.read(8 if implicit else 12), "<" if little else ">"
    stream.has_pixels = len(start) >= 8 and struct.unpack(f"{order}HH", start[:4]) == PIXELS
    if not stream.has_pixels:
        return ""
    (length,) = struct.unpack(f"{order}L", start[-4:])
    whole = _items_end(stream, size) if length == UNDEFINED else stream.tell() + length <= size
    return "" if whole else TRUNCATED


def _items_end(stream: _HeaderStream, size: int) -> bool:
    """Return whether the items of encapsulated pixels come to their end within the file."""
    while stream.tell() + 8 <= size:
        item, length = struct.unpack("<LL", stream.read(8))
        if item == ITEMS_END:
            return True
        stream.seek(length, io.SEEK_CUR)
    return False


def _facts(header: Dataset, key: PseudonymKey, reason: str) -> FilmHeader:
    patient, film = text(header, "PatientID"), text(header, "SOPInstanceUID")
    study, day = text(header, "StudyInstanceUID"), _date(header, "StudyDate", "AcquisitionDate")
    age = _age(header)
    maker, device = _device(header, key)
    syntax = header.file_meta.get("TransferSyntaxUID")
    plain = re.sub(r"(?<!\d)0+(?=\d)", "", patient).casefold()
    doubtful = age is not None and not 0 <= age <= OLDEST
    doubtful |= text(header, "PatientAge").upper() == NO_AGE
    return FilmHeader(
        reason=reason or ("" if film else "no SOPInstanceUID (0008,0018)"),
        image=key.pseudonym("film", film) if film else UNKNOWN,
        study=key.pseudonym("study", study) if study else UNKNOWN,
        patient=_patient(header, key) if patient else UNKNOWN,
        alike=key.pseudonym("plain patient", plain) if patient else UNKNOWN,
        day=day.toordinal() if day else 0,
        view=_view(header),
        age=float("nan") if age is None or doubtful else age,
        doubtful_age=doubtful,
        sex=_known(text(header, "PatientSex"), ("M", "F"), otherwise=UNKNOWN),
        posture=_posture(header),
        device=device,
        manufacturer=maker,
        body_part=_body_part(header),
        kind=KINDS.get(text(header, "SOPClassUID"), OTHER),
        modality=_known(text(header, "Modality"), MODALITIES),
        burned_in=_known(text(header, "BurnedInAnnotation"), ANSWERS, otherwise=UNKNOWN),
        deidentified=_known(text(header, "PatientIdentityRemoved"), ANSWERS, otherwise=UNKNOWN),
        photometric=_known(text(header, "PhotometricInterpretation"), PHOTOMETRIC),
        transfer_syntax=syntax.name if getattr(syntax, "is_transfer_syntax", False) else OTHER,
        bits_stored=_whole(header, "BitsStored"),
        width=_whole(header, "Columns"),
        height=_whole(header, "Rows"),
        pixel_spacing=_spacing(header),
    )


def patient_pseudonym(key: PseudonymKey, patient: str, *, issuer: str = "") -> str:
    """Return the pseudonym of a PatientID, of those that one issuer gave."""
    return key.pseudonym("patient", issuer, patient)


def _patient(header: Dataset, key: PseudonymKey) -> str:
    issuer = text(header, "IssuerOfPatientID")
    return patient_pseudonym(key, text(header, "PatientID"), issuer=issuer)


def _known(word: str, known: Iterable[str], *, otherwise: str = OTHER) -> str:
    """Return a word that is listed, "" for none, and what another stands as."""
    return word.upper() if word.upper() in known else otherwise if word else UNKNOWN


def _view(header: Dataset) -> str:
    """Return the view by the first element that states one; "" where they do not."""
    stated = text(header, "ViewPosition").upper()
    if stated in VIEWS:
        return stated
    if view := _only_view([stated, *_meanings(header, "ViewCodeSequence")]):
        return view
    if text(header, "PatientOrientation").upper()[:1] in ("A", "P"):
        return "LATERAL"
    described = (text(header, "SeriesDescription"), text(header, "ProtocolName"))
    return _only_view(described)


def _only_view(descriptions: Iterable[str]) -> str:
    """Return the view that descriptions name; "" where they name none, or several."""
    stated = [word for one in descriptions for word in re.findall("[a-z]+", one.casefold())]
    named = {VIEW_WORDS[word] for word in stated if word in VIEW_WORDS}
    return named.pop() if len(named) == 1 else UNKNOWN


def _posture(header: Dataset) -> str:
    meant = (POSTURES.get(one) for one in _meanings(header, "PatientOrientationCodeSequence"))
    return next((one for one in meant if one), UNKNOWN)


def _meanings(header: Dataset, name: str) -> list[str]:
    """Return the CodeMeaning of each item of a sequence, in small letters."""
    return [text(item, "CodeMeaning").casefold() for item in items(header, name)]


def _age(header: Dataset) -> float | None:
    """Return the age in years, whatever was written; None where nothing is."""
    if stated := AGE.fullmatch(text(header, "PatientAge").upper()):
        return int(stated[1]) / A_YEAR[stated[2]]
    born, studied = _date(header, "PatientBirthDate"), _date(header, "StudyDate")
    if born is None or studied is None:
        return None
    before_birthday = (studied.month, studied.day) < (born.month, born.day)
    return float(studied.year - born.year - before_birthday)


def _date(header: Dataset, *names: str) -> date | None:
    """Return the first of these dates that is one."""
    for name in names:
        if re.fullmatch(r"\d{8}", word := text(header, name)):
            try:
                return date(int(word[:4]), int(word[4:6]), int(word[6:]))
            except ValueError:
                continue  # 00000000, or a month 13: not stated
    return None


def _device(header: Dataset, key: PseudonymKey) -> tuple[str, str]:
    """Return the maker by its name here, and with it some digits that stand for the model."""
    maker, model = (text(header, name) for name in ("Manufacturer", "ManufacturerModelName"))
    if not maker and not model:
        return UNKNOWN, UNKNOWN
    lower = f"{maker.casefold()} "
    name = next((name for word, name in MAKERS.items() if lower.startswith(word)), OTHER)
    digits = key.pseudonym("device", maker.casefold(), model.casefold())[:MODEL_DIGITS]
    return name, f"{name} {digits}"


def _body_part(header: Dataset) -> str:
    part = text(header, "BodyPartExamined").upper()
    if any(word in part for word in CHEST):
        return CHEST[0]
    return next((one for one in BODY_PARTS if one in part), OTHER if part else UNKNOWN)


def _whole(header: Dataset, name: str) -> int:
    return next((int(one) for one in numbers(header, name) if 0 < one < 1 << 16), 0)


def _spacing(header: Dataset) -> float:
    """Return the distance of rows in mm: PixelSpacing, else the detector's over magnification."""
    if own := numbers(header, "PixelSpacing"):
        return own[0]
    detector = numbers(header, "ImagerPixelSpacing")
    magnified = numbers(header, "EstimatedRadiographicMagnificationFactor") or (1.0,)
    return detector[0] / magnified[0] if detector and magnified[0] > 0 else float("nan")

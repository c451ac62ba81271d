"""DICOM films made here: a grey film stored in the ways that archives hold them."""

from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from lucency.phantom.cohort import Film, Patient
from lucency.phantom.dataset import phantom_film

FIRST = 37  # the first level of look-up tables


@cache
def phantom_grey(size: int = 96) -> np.ndarray:
    """Return a phantom's film that uses all of black to white."""
    patient = Patient(seed=5, number=1, sex="M", age=50)
    film = Film(number=0, age=50, view="PA", findings=("Mass",), stated=("Mass",), drain=False)
    pixels = phantom_film(patient, film, size=size).pixels.astype(np.float64)[: size - 8]
    low, high = np.percentile(pixels, (1, 99))
    return np.rint(255 * np.clip((pixels - low) / (high - low), 0, 1)).astype(np.uint8)


def header(**elements: Any) -> Dataset:
    """Return the elements of a chest film for presentation, changed by `elements`."""
    made = Dataset()
    made.SOPClassUID, made.Modality = ComputedRadiographyImageStorage, "CR"
    made.SOPInstanceUID, made.StudyInstanceUID, made.SeriesInstanceUID = (
        generate_uid() for _ in range(3)
    )
    made.PatientName, made.PatientID, made.PatientSex = "Phantom^One", "P1", "M"
    made.PatientBirthDate, made.StudyDate, made.StudyTime = "19700101", "20200102", "101500"
    made.AccessionNumber, made.StudyID, made.ReferringPhysicianName = "A1", "S1", ""
    made.SeriesNumber, made.InstanceNumber, made.Manufacturer = 1, 1, "Lucency phantom"
    made.BodyPartExamined, made.PatientOrientation = "CHEST", ["L", "F"]
    made.PhotometricInterpretation, made.SamplesPerPixel = "MONOCHROME2", 1
    made.BitsAllocated, made.BitsStored, made.PixelRepresentation = 16, 12, 0
    change(made, elements)
    return made


def change(made: Dataset, elements: dict[str, Any]) -> None:
    for name, value in elements.items():
        if value is None:
            if name in made:
                delattr(made, name)
        else:
            setattr(made, name, value)


def dicom_bytes(
    stored: np.ndarray, *, syntax: str = ExplicitVRLittleEndian, **elements: Any
) -> bytes:
    """Return a DICOM file of stored values, in a transfer syntax that pydicom writes itself."""
    made = header(**elements)
    made.Rows, made.Columns = stored.shape
    made.HighBit = made.BitsStored - 1
    change(
        made, {name: elements[name] for name in ("Rows", "Columns", "HighBit") if name in elements}
    )
    order = "<" if UID(syntax).is_little_endian else ">"
    made.PixelData = stored.astype(f"{order}i{made.BitsAllocated // 8}").tobytes()
    made.PixelData += b"\0" * (len(made.PixelData) % 2)
    made["PixelData"].VR = "OW"
    return written(made, syntax)


def written(made: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return the file of a dataset, its pixels compressed where the syntax is."""
    meta, encapsulated = FileMetaDataset(), UID(syntax).is_encapsulated
    meta.MediaStorageSOPClassUID = made.SOPClassUID or ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = UID(ExplicitVRLittleEndian if encapsulated else syntax)
    little = UID(syntax).is_little_endian
    file = FileDataset("", made, b"\0" * 128, meta, is_implicit_VR=False, is_little_endian=little)
    if encapsulated:
        file.compress(syntax, encoding_plugin="pydicom" if syntax == RLELossless else "")
    content = BytesIO()
    file.save_as(content, enforce_file_format=True)
    return content.getvalue()


def look_up_table(entries: int, bits: int, *, first: int = FIRST, data: str = "US") -> Dataset:
    """Return a rising look-up table, as one item of a sequence."""
    table, item = curve(entries, bits), Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries % 65536, first, bits])
    words = table.astype("<u2")
    wide = data == "OW" or len(words) > 32_000  # more than an element of VR US may have
    item.add_new("LUTData", "OW" if wide else data, words.tobytes() if wide else words.tolist())
    return item


def curve(entries: int, bits: int) -> np.ndarray:
    return np.rint((np.arange(entries) / (entries - 1)) ** 0.8 * (2**bits - 1)).astype(np.int64)


def stored_for(grey: np.ndarray, **elements: Any) -> np.ndarray:
    """Return the stored values that a display shows as `grey`, by the inverse of each step."""
    made = header(**elements)
    white = made.PhotometricInterpretation == "MONOCHROME1"
    share = (255.0 - grey if white else grey.astype(np.float64)) / 255
    top, shift = 2**made.BitsStored - 1, 2 ** (made.BitsStored - 1)
    shift *= made.PixelRepresentation
    if "VOILUTSequence" in made:
        entries, first, bits = made.VOILUTSequence[0].LUTDescriptor
        table = curve(entries or 65536, bits)
        return first + np.searchsorted(table, np.rint(share * table[-1]))
    if "WindowCenter" not in made or "WindowWidth" not in made:
        return np.rint(share * top).astype(np.int64) - shift
    centre, width = (float(np.atleast_1d(made[name].value)[0]) for name in WINDOW)
    kind = made.get("VOILUTFunction", "LINEAR")
    if kind == "SIGMOID":
        share = np.clip(share, 1e-3, 1 - 1e-3)
        return np.rint(centre - width / 4 * np.log(1 / share - 1)).astype(np.int64)
    if kind == "LINEAR_EXACT":
        return np.rint(centre + (share - 0.5) * width).astype(np.int64)
    return np.rint(centre - 0.5 + (share - 0.5) * (width - 1)).astype(np.int64)


WINDOW = ("WindowCenter", "WindowWidth")

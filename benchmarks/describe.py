"""How many DICOM files a second does `lucency data describe` read, on one core and on two?

Usage: python benchmarks/describe.py [FILES] (default 6,000). The archive is made here: films of
512 x 512 pixels with the elements of a digital detector's, 60 private ones and two sequences among
them, as many a patient as in ChestX-ray14. They are read three times, of which the best counts: the
disk's cache is warm; a cold one, or one behind a network, takes what it takes. Files a second and
core are counted by the processors' time, so that what else runs on the machine does not count.
Beside it stands pydicom's `dcmread` of the whole header, without pixels.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from lucency.data.dicom_archive import describe_archive, read_archive
from lucency.data.pseudonyms import fleeting_key

ROOT = Path(__file__).resolve().parents[1]
FILES, SIDE, TIMES = 6_000, 512, 3


def main() -> None:
    """Measure, print a table and write it to benchmarks/results."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else FILES
    rows, key = [], fleeting_key()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_archive(folder, files)
        every = sorted(folder.rglob("*.dcm"))
        for cores in (1, 2):
            os.environ["OMP_NUM_THREADS"] = str(cores)
            rows += [("read_archive", cores, *best(lambda: read_archive(folder, key=key)))]
            rows += [("describe_archive", cores, *best(lambda: describe_archive(folder)))]
        rows += [("pydicom.dcmread, whole header", 1, *best(lambda: list(map(read, every))))]
    table = pd.DataFrame(rows, columns=["what", "cores", "seconds", "processor_seconds"])
    table["files_a_second_and_core"] = files / table["processor_seconds"]
    table = table.round({"seconds": 2, "processor_seconds": 2, "files_a_second_and_core": 0})
    print(table.to_string(index=False))
    cores = f"{platform.machine()}-{os.cpu_count()}core"
    file = ROOT / "benchmarks" / "results" / f"describe-{cores}-{datetime.date.today()}.csv"
    table.to_csv(file, index=False)
    print(f"written to {file.relative_to(ROOT)}")


def best(work: Callable[[], object]) -> tuple[float, float]:
    """Return the least seconds of TIMES, and of the processors, worker processes included."""
    measured = []
    for _ in range(TIMES):
        started, used = time.perf_counter(), sum(os.times()[:4])
        work()
        measured.append((time.perf_counter() - started, sum(os.times()[:4]) - used))
    seconds, processor = zip(*measured, strict=True)
    return min(seconds), min(processor)


def read(file: Path) -> int:
    """Read a whole header as one would without a list of elements."""
    return len(list(pydicom.dcmread(file, stop_before_pixels=True).iterall()))


def write_archive(folder: Path, files: int) -> None:
    """Write films that differ in what names them."""
    pixels = np.zeros((SIDE, SIDE), "<u2").tobytes()
    for number in range(files):
        place = folder / f"{number // 1000:03d}" / f"{number // 4:06d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.dcm").write_bytes(film(number, pixels))


def film(number: int, pixels: bytes) -> bytes:
    """Return a film as a digital detector may write it."""
    made, item = Dataset(), Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-10206", "SRT", "antero-post."
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    made.SOPInstanceUID, made.StudyInstanceUID = f"1.2.826.{number}.1", f"1.2.826.{number // 2}"
    made.SeriesInstanceUID, made.Modality = f"1.2.826.{number}.2", "DX"
    made.PatientID, made.PatientName, made.PatientSex = f"{number // 4:08d}", "Phantom^A", "F"
    made.PatientAge, made.StudyDate, made.PatientBirthDate = "054Y", "20200102", "19660101"
    made.Manufacturer, made.ManufacturerModelName = "Philips", "Digital"
    made.BodyPartExamined, made.ViewPosition = "CHEST", ("PA", "AP", "LL")[number % 3]
    made.PatientOrientation, made.PresentationIntentType = ["L", "F"], "FOR PRESENTATION"
    made.ViewCodeSequence, made.AnatomicRegionSequence = [item], [item]
    made.ImagerPixelSpacing = [0.148, 0.148]
    made.PhotometricInterpretation, made.SamplesPerPixel = "MONOCHROME2", 1
    made.Rows = made.Columns = SIDE
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.WindowCenter, made.WindowWidth = 2048, 4096
    made.add_new((0x0019, 0x0010), "LO", "A maker")
    for element in range(60):
        made.add_new((0x0019, 0x1000 + element), "LO", f"value {element}")
    made.PixelData = pixels
    made["PixelData"].VR = "OW"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(made.SOPClassUID)
    meta.MediaStorageSOPInstanceUID = UID(made.SOPInstanceUID)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content = BytesIO()
    FileDataset("", made, b"\0" * 128, meta).save_as(content, enforce_file_format=True)
    return content.getvalue()


if __name__ == "__main__":
    main()

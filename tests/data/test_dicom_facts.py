"""Facts of DICOM headers: what each element states, what is not believed, what is never read."""

import io
import math
import os
import struct
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from archives import MARK, archive_film, deflate_bomb, marked_film
from dicom_films import dicom_bytes, header, phantom_grey, stored_for, written
from lucency.data import dicom_facts
from lucency.data.dicom_facts import (
    DAMAGED,
    NO_FILE,
    NOT_DICOM,
    TRUNCATED,
    FilmHeader,
    read_header,
)
from lucency.data.pseudonyms import PseudonymKey

KEY = PseudonymKey(bytes(range(32)))


def facts(folder: Path, **elements: Any) -> FilmHeader:
    return of_bytes(folder, archive_film(0, **elements))


def of_bytes(folder: Path, content: bytes) -> FilmHeader:
    file = folder / "film"
    file.write_bytes(content)
    return read_header(file, key=KEY)


def coded(meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeMeaning = meaning
    return [item]


@pytest.mark.parametrize(
    ("elements", "view"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "ll "}, "LL"),
        ({"ViewPosition": "LARGE LATERAL"}, "LATERAL"),
        ({"ViewPosition": "PA", "ViewCodeSequence": coded("antero-posterior")}, "PA"),
        ({"ViewCodeSequence": coded("postero-anterior")}, "PA"),
        ({"ViewCodeSequence": coded("antero-posterior")}, "AP"),
        ({"ViewCodeSequence": coded("left lateral")}, "LATERAL"),
        ({"PatientOrientation": ["A", "F"]}, "LATERAL"),
        ({"PatientOrientation": ["P", "F"], "SeriesDescription": "Chest PA"}, "LATERAL"),
        ({"PatientOrientation": ["L", "F"]}, ""),
        ({"SeriesDescription": "Chest PA"}, "PA"),
        ({"SeriesDescription": "CHEST PORTABLE"}, "AP"),
        ({"ProtocolName": "Bedside thorax"}, "AP"),
        ({"SeriesDescription": "CHEST PA AND LAT"}, ""),
        ({"SeriesDescription": "Mr Lateran, Paul"}, ""),
        ({"ViewPosition": MARK}, ""),
    ],
)
def test_the_view_is_that_of_the_first_element_that_states_one(
    tmp_path: Path, elements: dict, view: str
):
    assert facts(tmp_path, **elements).view == view


@pytest.mark.parametrize(
    ("elements", "age"),
    [
        ({"PatientAge": "045Y"}, 45),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "026W"}, 26 / 52.18),
        ({"PatientAge": "010D"}, 10 / 365.25),
        ({"PatientBirthDate": "19700802", "StudyDate": "20200801"}, 49),
        ({"PatientBirthDate": "19700801", "StudyDate": "20200801"}, 50),
        ({"PatientAge": "", "PatientBirthDate": ""}, None),
        ({"PatientAge": "000Y"}, None),
        ({"PatientAge": "999Y"}, None),
        ({"PatientAge": "121Y"}, None),
        ({"PatientBirthDate": "20210801", "StudyDate": "20200801"}, None),
        ({"PatientBirthDate": "20200501", "StudyDate": "20200801"}, 0),
        ({"PatientAge": "000D"}, 0),
        ({"PatientBirthDate": "00000000"}, None),
    ],
)
def test_the_age_is_in_years_and_an_impossible_one_is_none(
    tmp_path: Path, elements: dict, age: float | None
):
    found = facts(tmp_path, **elements)
    assert math.isnan(found.age) if age is None else found.age == pytest.approx(age)
    stated = elements.get("PatientAge") or elements.get("PatientBirthDate")
    assert found.doubtful_age == (age is None and stated not in ("", "00000000"))


@pytest.mark.parametrize(
    ("elements", "field", "value"),
    [
        ({"PatientSex": "O"}, "sex", ""),
        ({"PatientSex": "F"}, "sex", "F"),
        ({"PatientOrientationCodeSequence": coded("Erect")}, "posture", "erect"),
        ({"PatientOrientationCodeSequence": coded(MARK)}, "posture", ""),
        ({"BodyPartExamined": "PORTABLE CHEST"}, "body_part", "CHEST"),
        ({"BodyPartExamined": "RIBS"}, "body_part", "RIB"),
        ({"BodyPartExamined": MARK}, "body_part", "other"),
        ({"BurnedInAnnotation": "YES"}, "burned_in", "YES"),
        ({}, "burned_in", ""),
        ({"PatientIdentityRemoved": "NO"}, "deidentified", "NO"),
        ({"Modality": MARK}, "modality", "other"),
        ({}, "kind", "CR"),
        ({}, "photometric", "MONOCHROME2"),
        ({}, "bits_stored", 12),
        ({}, "transfer_syntax", "Explicit VR Little Endian"),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.3, 0.3]}, "pixel_spacing", 0.2),
        (
            {
                "ImagerPixelSpacing": [0.3, 0.3],
                "EstimatedRadiographicMagnificationFactor": 1.5,
            },
            "pixel_spacing",
            0.2,
        ),
    ],
)
def test_other_facts_are_listed_words_and_numbers(
    tmp_path: Path, elements: dict, field: str, value: object
):
    found = getattr(facts(tmp_path, **elements), field)
    assert found == (pytest.approx(value) if isinstance(value, float) else value)


def test_a_device_is_its_maker_and_a_pseudonym_of_the_model(tmp_path: Path):
    one = facts(tmp_path, Manufacturer="Philips Medical Systems", ManufacturerModelName="Digital")
    other = facts(tmp_path, Manufacturer="PHILIPS Medical Systems", ManufacturerModelName="Easy")
    strange = facts(tmp_path, Manufacturer=MARK, ManufacturerModelName=MARK)
    assert [found.manufacturer for found in (one, other, strange)] == [
        "Philips",
        "Philips",
        "other",
    ]
    assert one.device.startswith("Philips ")
    assert one.device != other.device
    assert MARK not in strange.device
    assert facts(tmp_path, Manufacturer=None).device == ""


def test_patients_of_two_issuers_are_two_and_names_are_pseudonyms(tmp_path: Path):
    one = facts(tmp_path, IssuerOfPatientID="A")
    other = facts(tmp_path, IssuerOfPatientID="B")
    assert one.patient != other.patient
    assert one.image == other.image
    assert one.patient == KEY.pseudonym("patient", "A", "P0")
    assert facts(tmp_path, PatientAge="040Y").patient == KEY.pseudonym("patient", "", "P0")
    assert {len(name) for name in (one.image, one.study, one.patient)} == {16}
    again = read_header(tmp_path / "film", key=PseudonymKey(bytes(32)))
    assert again.image != one.image


def test_no_field_holds_a_text_of_the_file(tmp_path: Path):
    found = of_bytes(tmp_path, marked_film(1))
    assert (found.reason, found.width) == ("", 96)
    assert MARK not in repr(found)


def test_a_leak_would_be_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dicom_facts, "_view", lambda header: header.ViewPosition)
    assert MARK in repr(of_bytes(tmp_path, marked_film(1)))


def test_only_listed_elements_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen, read = [], pydicom.dcmread

    def watched(*places: Any, **choices: Any) -> Any:
        made = read(*places, **choices)
        seen.extend(made.keys())
        return made

    monkeypatch.setattr(pydicom, "dcmread", watched)
    of_bytes(tmp_path, marked_film(1))
    names = {pydicom.datadict.keyword_for_tag(tag) for tag in seen}
    assert names <= {*dicom_facts.READ, "SpecificCharacterSet"}
    assert not names & {"PatientName", "AccessionNumber", "InstitutionName", "PatientComments"}


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless,
        ExplicitVRLittleEndian,
    ],
)  # fmt: skip
def test_every_syntax_gives_the_same_facts_and_a_cut_is_found(tmp_path: Path, syntax: str):
    named = {"SOPInstanceUID": "1.2", "StudyInstanceUID": "1.3", "ViewPosition": "PA"}
    content = dicom_bytes(stored_for(phantom_grey()), syntax=syntax, **named)
    plain = of_bytes(tmp_path, dicom_bytes(stored_for(phantom_grey()), **named))
    found = of_bytes(tmp_path, content)
    assert (found.reason, found.transfer_syntax) == ("", syntax.name)
    differ = [f for f in FilmHeader._fields if str(getattr(found, f)) != str(getattr(plain, f))]
    named_anew = {"image"} if syntax == RLELossless else set()  # by pydicom, when it compresses
    assert {*differ} - named_anew <= {"transfer_syntax"}
    assert of_bytes(tmp_path, content[:-300]).reason == TRUNCATED


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", NOT_DICOM),
        (b"\x89PNG\r\n" + bytes(300), NOT_DICOM),
        (bytes(128) + b"DICM", "no pixels"),
        (bytes(128) + b"DICM" + b"\xff" * 200, DAMAGED),
        (archive_film(0)[:700], "no pixels"),
        (archive_film(0, PresentationIntentType="FOR PROCESSING"), "raw data of a detector"),
        (archive_film(0, SamplesPerPixel=3), "in colour"),
        (archive_film(0, NumberOfFrames=2), "several frames"),
        (archive_film(0, BodyPartExamined="KNEE"), "not of the chest"),
        (archive_film(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.2"), "no plain film"),
        (archive_film(0, SOPClassUID="1.2.840.10008.1.3.10"), "a DICOMDIR"),
        (archive_film(0).replace(b"1.2.0.1", b"       "), "no SOPInstanceUID"),
    ],
)
def test_what_is_no_film_has_its_reason(tmp_path: Path, content: bytes, reason: str):
    assert of_bytes(tmp_path, content).reason.startswith(reason)


def test_a_directory_or_an_absent_file_is_a_reason(tmp_path: Path):
    assert read_header(tmp_path, key=KEY).reason.startswith("cannot be read: ")
    assert read_header(tmp_path / "none", key=KEY).reason.startswith("cannot be read: ")


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "x.dcm")
    held = os.open(tmp_path / "x.dcm", os.O_RDWR)  # so that a reader is refused, not hung
    os.write(held, archive_film(0)[:1000])
    try:
        assert read_header(tmp_path / "x.dcm", key=KEY).reason == NO_FILE
    finally:
        os.close(held)


def test_an_element_that_cannot_be_read_is_not_stated(tmp_path: Path):
    broken = archive_film(0, PixelSpacing=[0.123, 0.123]).replace(b"0.123\\0.123", b"MARKED\\MARK")
    found = of_bytes(tmp_path, broken)
    assert (found.reason, found.width) == ("", 96)
    assert math.isnan(found.pixel_spacing)


def test_a_file_that_inflates_without_end_is_read_to_a_limit(tmp_path: Path):
    (tmp_path / "film").write_bytes(deflate_bomb(64))
    assert (tmp_path / "film").stat().st_size < 1 << 20
    tracemalloc.start()
    started = time.monotonic()
    found = read_header(tmp_path / "film", key=KEY)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.reason == dicom_facts.ABSURD
    assert most < 4 * dicom_facts.MOST_READ
    assert time.monotonic() - started < 10


def test_sequences_in_each_other_are_a_reason(tmp_path: Path):
    deep = struct.pack("<HH2sHI", 0x40, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    deep += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    film = archive_film(0)
    place = film.index(struct.pack("<HH", 0x7FE0, 0x10))
    assert of_bytes(tmp_path, film[:place] + deep * 1000).reason == DAMAGED


def test_a_header_without_end_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    film = archive_film(0)
    place = film.index(struct.pack("<HH", 0x7FE0, 0x10))
    many = b"".join(struct.pack("<HH2sH", 0x51, number, b"LO", 0) for number in range(5000))
    monkeypatch.setattr(dicom_facts, "MOST_READ", 10_000)
    assert of_bytes(tmp_path, film[:place] + many + film[place:]).reason.startswith("absurd size")
    monkeypatch.undo()
    assert of_bytes(tmp_path, film[:place] + many + film[place:]).reason == ""


def items_of(tag: tuple[int, int], items: int, *, length: bool) -> bytes:
    """Return a sequence of empty items, with its length or without."""
    empty = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * items
    size = len(empty) if length else 0xFFFFFFFF
    end = b"" if length else struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return struct.pack("<HH2sHI", *tag, b"SQ", 0, size) + empty + end


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("tag", "length"), [((0x54, 0x220), True), ((0x54, 0x220), False)])
def test_a_flood_of_items_is_no_view(tmp_path: Path, tag: tuple, length: bool, packed: bool):
    syntax = DeflatedExplicitVRLittleEndian if packed else ExplicitVRLittleEndian
    film = archive_film(0, syntax=syntax)
    end = 144 + struct.unpack_from("<I", film, 140)[0]
    elements = zlib.decompress(film[end:], -15) if packed else film[end:]
    place = elements.index(struct.pack("<HH", 0x7FE0, 0x10))
    flood = elements[:place] + items_of(tag, 200_000, length=length) + elements[place:]
    if packed:
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        flood = packer.compress(flood) + packer.flush()
    started = time.monotonic()
    found = of_bytes(tmp_path, film[:end] + flood)
    assert time.monotonic() - started < 10
    assert found.view == ""
    assert found.reason == (dicom_facts.ABSURD if packed or not length else "")


def test_a_file_s_end_is_looked_for_behind_encapsulated_pixels(tmp_path: Path):
    made = header()
    made.Rows = made.Columns = 32
    made.HighBit = 11
    made.PixelData = np.zeros((32, 32), "<i2").tobytes()
    content = io.BytesIO(written(made, RLELossless)).getvalue()
    assert of_bytes(tmp_path, content).reason == ""
    assert of_bytes(tmp_path, content[:-8]).reason == TRUNCATED

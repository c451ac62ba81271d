"""DICOM films: one phantom stored in every way comes out alike; what is no chest film is refused.

The combinations are those of 7,469 headers of OpenI's chest films.
"""

import struct
import sys
import zlib
from pathlib import Path

import cv2
import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.pixels import (
    apply_modality_lut,
    apply_presentation_lut,
    apply_voi_lut,
    apply_windowing,
)
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from dicom_films import curve, dicom_bytes, header, look_up_table, phantom_grey, stored_for, written
from lucency.core.manifest import Preparation
from lucency.data.dicom import decode_dicom, decode_dicom_deep
from lucency.data.images import decode, read_grey
from lucency.data.preprocess import prepare_file, prepare_film
from lucency.deploy.decoding import prepare_content

LUT, WINDOW, NEITHER, BOTH = "LUT", "window", "neither", "LUT and three windows"
COMBINATIONS = (
    (1, None, "LOG_E REL", LUT, 12, None), (2, "IDENTITY", None, WINDOW, 12, None),
    (2, "IDENTITY", "US", WINDOW, 15, -1), (1, "INVERSE", "P-VALUES", WINDOW, 15, None),
    (2, "IDENTITY", None, NEITHER, 12, None), (1, "INVERSE", "P-VALUES", LUT, 15, None),
    (2, "IDENTITY", "US", WINDOW, 12, None), (2, None, None, WINDOW, 12, None),
    (1, None, "US", NEITHER, 10, None), (2, None, None, WINDOW, 15, None),
    (1, None, None, WINDOW, 12, None), (2, "IDENTITY", "US", BOTH, 14, None),
    (1, None, "US", WINDOW, 12, None), (1, None, None, NEITHER, 12, None),
    (1, "INVERSE", "P REL", LUT, 15, None), (1, None, "US", WINDOW, 10, None),
    (2, None, "US", WINDOW, 12, None),
)  # fmt: skip


def elements_of(combination: tuple, *, depth: int = 16, signed: int = 0) -> dict:
    mono, shape, rescale, voi, bits, sign = combination
    made = {"PhotometricInterpretation": f"MONOCHROME{mono}", "BitsStored": bits}
    made["PixelRepresentation"], below = signed, signed * 2 ** (bits - 1)
    made |= {"PresentationLUTShape": shape, "PixelIntensityRelationshipSign": sign}
    if rescale:
        made |= {"RescaleType": rescale, "RescaleSlope": 1, "RescaleIntercept": 0}
    if voi in (WINDOW, BOTH):
        middle, width = 2**bits * 0.45 - below, 2**bits * 0.6
        made |= {"WindowCenter": middle, "WindowWidth": width}
    if voi in (LUT, BOTH):
        made["VOILUTSequence"] = Sequence([look_up_table(2**bits // 2, depth, first=37 - below)])
    if voi == BOTH:
        made |= {"WindowCenter": [middle, 1, 2], "WindowWidth": [width, 3, 4]}
        made["WindowCenterWidthExplanation"] = ["NORMAL", "HARDER", "SOFTER"]
    return {name: value for name, value in made.items() if value is not None}


def decode_grey(content: bytes) -> np.ndarray:
    return decode_dicom(content).grey


def alike(content: bytes, within: int = 1) -> None:
    found = decode_grey(content).astype(int)
    assert np.abs(found - phantom_grey()).max() <= within


DEPTHS = [(one, depth) for one in COMBINATIONS for depth in (8, 10, 12, 16) if LUT in one[3]]
DEPTHS += [(one, 16) for one in COMBINATIONS if LUT not in one[3]]
SYNTAXES = (
    ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian, RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless,
)  # fmt: skip


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize(("combination", "depth"), DEPTHS, ids=str)
def test_a_film_is_the_same_in_every_combination_and_syntax(
    combination: tuple, depth: int, signed: int, tmp_path: Path
):
    elements = elements_of(combination, depth=depth, signed=signed)
    stored = stored_for(phantom_grey(), **elements)
    for syntax in SYNTAXES:
        if syntax == JPEGLosslessSV1:
            content = by_gdcm(dicom_bytes(stored, **elements), syntax, tmp_path)
        else:
            content = dicom_bytes(stored, syntax=syntax, **elements)
        assert syntax.encode() in content[:400], syntax
        apart = np.abs(decode_grey(content).astype(int) - phantom_grey())
        assert apart.max() <= 1, syntax


def test_all_combinations_of_the_headers_are_there():
    assert len(set(COMBINATIONS)) == 17


@pytest.mark.parametrize("combination", COMBINATIONS, ids=str)
@pytest.mark.parametrize("signed", [0, 1])
def test_padding_is_black(combination: tuple, signed: int):
    elements = elements_of(combination, signed=signed)
    stored, top = stored_for(phantom_grey(), **elements), 2 ** elements["BitsStored"] - 1
    lowest = -signed * (top + 1) // 2
    white = lowest if elements["PhotometricInterpretation"] == "MONOCHROME1" else lowest + top
    if combination[3] == NEITHER:  # the film itself has all values
        stored = np.clip(stored, lowest + top // 100, lowest + top - top // 100)
    stored[:, :9] = white
    shown = decode_grey(dicom_bytes(stored, **elements, PixelPaddingValue=white))
    assert (shown[:, :9] == 0).all()
    assert np.abs(shown[:, 9:].astype(int) - phantom_grey()[:, 9:]).max() <= 3
    assert decode_grey(dicom_bytes(stored, **elements))[40, 4] > 200


def test_padding_is_black_where_the_window_begins_below_all_values():
    about = {"WindowCenter": 1000, "WindowWidth": 4096, "PixelPaddingValue": 4095}
    stored = np.full((64, 64), 1000)
    stored[:, :9] = 4095
    shown = decode_grey(dicom_bytes(stored, **about))
    assert set(shown[:, :9].ravel().tolist()) == {0}
    assert set(shown[:, 9:].ravel().tolist()) == {128}


def test_a_range_of_padding_counts_in_either_order():
    elements = {"PixelRepresentation": 1, "WindowCenter": 0, "WindowWidth": 1000}
    stored = stored_for(phantom_grey(), **elements)
    stored[:3], stored[3:6] = 1990, 2010
    for ends in ((1980, 2020), (2020, 1980)):
        about = {"PixelPaddingValue": ends[0], "PixelPaddingRangeLimit": ends[1]}
        shown = decode_dicom_deep(dicom_bytes(stored, **elements, **about))
        assert shown.padded[:6].all()
        assert not shown.padded[6:].any()


@pytest.mark.parametrize("kind", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [0, 1])
def test_windows_of_every_function(kind: str, photometric: str, signed: int):
    elements = {
        "VOILUTFunction": kind, "PixelRepresentation": signed, "WindowCenter": 1300 - 1900 * signed,
        "WindowWidth": 420, "PhotometricInterpretation": photometric,
    }  # fmt: skip
    content = dicom_bytes(stored_for(phantom_grey(), **elements), **elements)
    alike(content)
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    low, high = (-2048, 2047) if signed else (0, 4095)
    share = (apply_windowing(dataset.pixel_array, dataset) - low) / (high - low)
    expected = 255 * (1 - share if photometric == "MONOCHROME1" else share)
    assert np.abs(decode_grey(content) - expected).max() <= 0.51


@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (2.5, -300.5), (0.25, 7)])
def test_rescaled_values_as_pydicom_has_them(slope: float, intercept: float):
    stored = np.arange(4096).reshape(64, 64)
    middle = slope * 2000 + intercept
    elements = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    window = {"WindowCenter": middle, "WindowWidth": abs(slope) * 1500}
    content = dicom_bytes(stored, **elements, **window)
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    shown = apply_windowing(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    expected = 255 * (shown - shown.min()) / np.ptp(shown)
    assert np.abs(decode_grey(content) - expected).max() <= 0.51


def test_a_falling_slope_turns_the_film():
    stored = stored_for(phantom_grey())
    falling = {"RescaleSlope": -1, "RescaleIntercept": 4095}
    alike(dicom_bytes(4095 - stored, **falling))
    alike(dicom_bytes(4095 - stored, **falling, WindowCenter=2048, WindowWidth=4096))


@pytest.mark.parametrize("name", ["mlut_18", "vlut_04"])
def test_published_tables_as_pydicom_has_them(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lucency.data.dicom.why_left_out", lambda _: "")
    file = Path(get_testdata_file(f"{name}.dcm", download=False))
    dataset = pydicom.dcmread(file)
    shown = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    table = dataset.get("VOILUTSequence") or dataset.ModalityLUTSequence
    top = 2 ** table[0].LUTDescriptor[2] - 1
    assert np.abs(decode_grey(file.read_bytes()) - 255.0 * shown / top).max() <= 0.51


@pytest.mark.parametrize("data", ["US", "OW"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("first", [-700, 0, 37])
def test_tables_begin_anywhere(data: str, syntax: str, first: int):
    signed = int(first < 0)
    elements = {
        "PixelRepresentation": signed,
        "VOILUTSequence": Sequence([look_up_table(1500, 14, first=first, data=data)]),
    }
    alike(dicom_bytes(stored_for(phantom_grey(), **elements), syntax=syntax, **elements))
    film = np.full((64, 64), -2048 * signed)
    film[:32] = 2047
    shown = decode_grey(dicom_bytes(film, syntax=syntax, **elements))
    assert (shown[:32] == 255).all()  # beyond the ends are the ends
    assert (shown[32:] == 0).all()


def test_a_table_of_65536_entries_and_one_of_packed_bytes():
    whole = look_up_table(65536, 16)
    whole.LUTDescriptor = [0, 0, 16]
    stored = np.linspace(0, 65535, 4096).astype(np.int64).reshape(64, 64)
    shown = decode_grey(dicom_bytes(stored, BitsStored=16, VOILUTSequence=Sequence([whole])))
    assert np.abs(shown - curve(65536, 16)[stored] / 257).max() <= 0.51
    packed = look_up_table(255, 8, first=0)
    packed.add_new("LUTData", "OW", curve(255, 8).astype(np.uint8).tobytes() + b"\0")
    stored = np.arange(4096).reshape(64, 64) % 255
    shown = decode_grey(dicom_bytes(stored, VOILUTSequence=Sequence([packed])))
    np.testing.assert_array_equal(shown, curve(255, 8)[stored])


def test_trap_1_a_table_of_eight_bits_does_not_wrap():
    table = look_up_table(4096, 8, first=0)
    table.LUTData = (np.arange(4096) // 16).tolist()
    stored = np.array([0, 100, 255, 256, 300, 1000, 4095] * 256)[: 32 * 56].reshape(32, 56)
    content = dicom_bytes(stored, VOILUTSequence=Sequence([table]))
    np.testing.assert_array_equal(decode_grey(content), stored // 16)
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    assert not np.array_equal(apply_voi_lut(dataset.pixel_array, dataset), stored // 16)


def test_trap_2_a_slope_of_one_keeps_whole_numbers():
    elements = {"RescaleSlope": "1.0 ", "RescaleIntercept": "0", "WindowCenter": 2048}
    stored = stored_for(phantom_grey(), **elements, WindowWidth=4096)
    film = decode_dicom_deep(dicom_bytes(stored, **elements, WindowWidth=4096))
    np.testing.assert_array_equal(film.pixels, stored)
    assert (film.bits, film.low, film.high, film.voi) == (12, 0, 4095, "window")


@pytest.mark.parametrize(
    ("centre", "width"), [(2048, None), (None, 4096), (2048, ""), ("", ""), (2048, 0), (2048, 0.5)]
)
def test_traps_3_to_5_a_window_that_is_not_whole_is_none(centre: object, width: object):
    stored = stored_for(phantom_grey())
    content = dicom_bytes(stored, WindowCenter=centre, WindowWidth=width)
    assert decode_dicom_deep(content).voi == "stored range"
    alike(content)


@pytest.mark.parametrize("width", [1, 2])
def test_a_narrow_window_is_a_step(width: int):
    stored = np.arange(4096).reshape(64, 64)
    shown = decode_grey(dicom_bytes(stored, WindowCenter=2000, WindowWidth=width))
    np.testing.assert_array_equal(shown, np.where(stored >= 2000, 255, 0))


def test_trap_6_the_first_of_several_windows_counts():
    several = {"WindowCenter": [1800, 5], "WindowWidth": [2000, 7]}
    alike(dicom_bytes(stored_for(phantom_grey(), **several), **several))


@pytest.mark.parametrize("shape", ["INVERSE", "IDENTITY", None])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_trap_7_inversion_is_once_and_about_the_range(shape: str | None, photometric: str):
    about = {"PhotometricInterpretation": photometric, "BitsStored": 12, "WindowCenter": 2048}
    film = phantom_grey() // 2  # not up to white
    about |= {"WindowWidth": 4096, "PresentationLUTShape": shape}
    content = dicom_bytes(stored_for(film, **about), **about)
    assert np.abs(decode_grey(content).astype(int) - film).max() <= 1


def test_trap_8_a_table_s_range_is_its_own():
    table = Sequence([look_up_table(900, 16)])
    elements = {"BitsStored": 10, "VOILUTSequence": table}
    elements["PhotometricInterpretation"] = "MONOCHROME1"
    alike(dicom_bytes(stored_for(phantom_grey(), **elements), **elements))


@pytest.mark.parametrize("width", [b"4095\\2048 ", b" 4095 ", b"4095.0"])
def test_trap_9_numbers_as_text(width: bytes):
    stored = stored_for(phantom_grey(), WindowCenter=2047.5, WindowWidth=4095)
    made = dicom_bytes(stored, WindowCenter="2047.5", WindowWidth="4096")
    place = made.index(b"\x28\x00\x51\x10DS")
    held = width + b" " * (len(width) % 2)
    content = made[: place + 6] + struct.pack("<H", len(held)) + held + made[place + 12 :]
    alike(content)


@pytest.mark.parametrize("held", [b"high", b"NaN ", b"1e999 "])
def test_numbers_that_are_none_make_no_window(held: bytes):
    made = dicom_bytes(stored_for(phantom_grey()), WindowCenter="2048", WindowWidth="4096")
    place = made.index(b"\x28\x00\x51\x10DS")
    content = made[: place + 6] + struct.pack("<H", len(held)) + held + made[place + 12 :]
    assert decode_dicom_deep(content).voi == "stored range"


def test_without_any_window_raw_values_are_stretched_and_p_values_are_not():
    stored = 1000 + stored_for(phantom_grey()) // 5
    raw = decode_dicom_deep(dicom_bytes(stored))
    assert raw.voi == "percentiles"
    np.testing.assert_allclose((raw.low, raw.high), np.percentile(stored, (0.5, 99.5)), atol=2)
    for about in ({"PresentationLUTShape": "IDENTITY"}, {"RescaleType": "P-VALUES"}):
        film = decode_dicom_deep(dicom_bytes(stored, **about))
        assert (film.low, film.high, film.voi) == (0, 4095, "stored range")


def test_padding_takes_no_part_in_percentiles():
    stored = 1000 + stored_for(phantom_grey()) // 5
    padded = np.pad(stored, 40)
    content = dicom_bytes(padded, PixelPaddingValue=0)
    inner = decode_grey(content)[40:-40, 40:-40].astype(int)
    assert np.abs(inner - decode_grey(dicom_bytes(stored)).astype(int)).max() <= 1


def by_gdcm(content: bytes, syntax: str, place: Path) -> bytes:
    """Return the file in a transfer syntax that pydicom does not write."""
    (place / "plain.dcm").write_bytes(content)
    reader, writer = gdcm.ImageReader(), gdcm.ImageWriter()
    reader.SetFileName(str(place / "plain.dcm"))
    assert reader.Read()
    changed = gdcm.ImageChangeTransferSyntax()
    changed.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    changed.SetInput(reader.GetImage())
    assert changed.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(changed.GetOutput())
    writer.SetFileName(str(place / "small.dcm"))
    assert writer.Write()
    return (place / "small.dcm").read_bytes()


def test_a_real_chest_film_is_one_picture_in_four_encodings():
    one, lossless, other, lossy = (
        decode_grey(Path(get_testdata_file(f"RG1_{name}.dcm", download=False)).read_bytes())
        for name in ("UNCR", "J2KR", "UNCI", "J2KI")
    )
    np.testing.assert_array_equal(one, lossless)
    np.testing.assert_array_equal(other, lossy)
    apart = np.abs(one.astype(int) - other)
    assert apart.max() <= 3  # the stored values differ by up to 403 of the window's 30,000
    assert (apart <= 2).mean() > 0.999
    assert one.shape == (1955, 1841)
    dataset = pydicom.dcmread(get_testdata_file("RG1_UNCR.dcm", download=False))
    dataset.compress(RLELossless, encoding_plugin="pylibjpeg")
    held = pydicom.filebase.DicomBytesIO()
    dataset.save_as(held)
    assert b"\xff\x4f\xff\x51" in held.getvalue()  # by chance, what JPEG 2000 begins with
    np.testing.assert_array_equal(decode_grey(held.getvalue()), one)


def test_jpeg_of_twelve_bits_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lucency.data.dicom.PLAIN", ("NM",))
    monkeypatch.setattr("lucency.data.dicom.CHEST", ("BODY",))
    file = Path(get_testdata_file("JPEG-lossy.dcm", download=False))  # no decoder of ours reads it
    with pytest.raises(ValueError, match=r"^no decoder of its Transfer"):
        decode_grey(file.read_bytes())


@pytest.mark.filterwarnings("ignore")
def test_broken_runs_are_an_error_not_a_panic():
    content = bytearray(dicom_bytes(stored_for(phantom_grey()), syntax=RLELossless))
    start = content.index(b"\xfe\xff\x00\xe0", content.index(b"\xe0\x7f\x10\x00") + 20) + 8
    for place in range(start + 64, len(content), 97):
        broken = bytes(content[:place]) + b"\x7f" + bytes(content[place + 1 :])
        try:
            decode_grey(broken)
        except ValueError as error:
            assert "damaged" in str(error)  # noqa: PT017


def test_bits_above_those_stored_are_cut():
    about = {"WindowCenter": 1800, "WindowWidth": 3000}
    stored = stored_for(phantom_grey(), **about)
    stored[5:40, 5:40] |= 0x1000  # an overlay of old files
    alike(dicom_bytes(stored, **about))


def test_eight_bits_and_films_without_the_high_bit():
    content = dicom_bytes(phantom_grey().astype(int), BitsAllocated=8, BitsStored=8)
    np.testing.assert_array_equal(decode_grey(content), phantom_grey())
    about = {"WindowCenter": 1800, "WindowWidth": 3000, "HighBit": None}
    alike(dicom_bytes(stored_for(phantom_grey(), **about), **about))


def test_a_mirrored_film_is_mirrored_back():
    stored = stored_for(phantom_grey()[:, ::-1])
    content = dicom_bytes(stored, PatientOrientation=["R", "F"])
    assert decode_dicom_deep(content).mirrored
    alike(content)
    assert not decode_dicom_deep(dicom_bytes(stored)).mirrored


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "(0008,0068) is FOR PROCESSING"),
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, "raw data"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "(0008,0016)"),  # CT
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "MR"}, "(0008,0060)"),
        ({"PhotometricInterpretation": "RGB"}, "in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "in colour"),
        ({"SamplesPerPixel": 3}, "in colour"),
        ({"NumberOfFrames": 2}, "several frames"),
        ({"BodyPartExamined": "EXTREMETY"}, "not of the chest"),
        ({"BodyPartExamined": "RIBS"}, "not of the chest"),
        ({"SOPClassUID": "", "Modality": "CT"}, "(0008,0060)"),
        ({"BitsStored": 17}, "of another depth"),
        ({"HighBit": 15}, "of another depth: HighBit"),
        ({"Rows": 65535, "Columns": 65535}, "absurd size: 65535 x 65535"),
        ({"Rows": 8}, "absurd size"),
        ({"Rows": 90}, "damaged"),
        ({"Rows": None}, "damaged"),
    ],
)
def test_what_is_no_chest_film_is_refused(elements: dict, reason: str):
    with pytest.raises(ValueError, match=reason.replace("(", r"\(").replace(")", r"\)")):
        decode_grey(dicom_bytes(stored_for(phantom_grey()), **elements))


@pytest.mark.parametrize("part", ["CHEST", "NON GRID CHEST", "PORTABLE CHEST", "THORAX", None])
def test_parts_of_the_chest_are_read(part: str | None):
    alike(dicom_bytes(stored_for(phantom_grey()), BodyPartExamined=part))


def test_without_pixels_and_directories_are_refused():
    with pytest.raises(ValueError, match="no pixels"):
        decode_grey(written(header()))
    index = header(SOPClassUID=MediaStorageDirectoryStorage)
    with pytest.raises(ValueError, match="DICOMDIR"):
        decode_grey(written(index))
    with pytest.raises(ValueError, match="DICM"):
        decode_grey(b"\0" * 200)


def test_a_file_cut_anywhere_is_refused():
    content = dicom_bytes(stored_for(phantom_grey()), syntax=JPEG2000Lossless)
    for end in (132, 140, 150, 300, 700, 1000, len(content) // 2):
        with pytest.raises(
            ValueError, match=r"truncated|damaged|no pixels|of another depth|in col"
        ):
            decode_grey(content[:end])


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"\x28\x00\x50\x10DS", b"\x28\x00\x50\x10Dq"),  # no such kind of value
        (b"\x28\x00\x01\x01US\x02\x00", b"\x28\x00\x01\x01US\x03\x00"),  # an odd length
        (b"\x28\x00\x06\x30", b"\x28\x00\x06\x31"),  # a table without its data
    ],
)
def test_elements_that_cannot_be_are_damage(was: bytes, now: bytes):
    table = Sequence([look_up_table(1500, 14)])
    content = dicom_bytes(
        stored_for(phantom_grey()), VOILUTSequence=table, WindowCenter=5, WindowWidth=9
    )
    assert was in content
    with pytest.raises(ValueError, match=r"^damaged|ends within an element"):
        decode_grey(content.replace(was, now))


def test_a_stream_of_another_size_is_not_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pydicom.Dataset, "pixel_array", property(lambda _: pytest.fail("decoded")))
    content = dicom_bytes(stored_for(phantom_grey()), syntax=JPEG2000Lossless)
    place = content.index(b"\xff\x4f\xff\x51") + 8
    bomb = content[:place] + struct.pack(">II", 60_000, 60_000) + content[place + 8 :]
    with pytest.raises(ValueError, match="damaged: its pixels"):
        decode_grey(bomb)


def test_a_file_that_inflates_without_end_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lucency.data.dicom.NOT_SUSPECT", 1 << 22)
    made = dicom_bytes(stored_for(phantom_grey()), syntax=DeflatedExplicitVRLittleEndian)
    alike(made)
    end = 144 + struct.unpack_from("<I", made, 140)[0]
    squeezed = zlib.compressobj(wbits=-15)
    bomb = made[:end] + squeezed.compress(bytes(1 << 23)) + squeezed.flush()
    for length in (end - 144, 0, 2**31):  # the group length of the header is believed by nobody
        lying = bomb[:140] + struct.pack("<I", length) + bomb[144:]
        with pytest.raises(ValueError, match="absurd size: it inflates"):
            decode_grey(lying)


@pytest.mark.parametrize(
    "elements", [{"BitsStored": 17}, {"BodyPartExamined": "MARKED"}, {"Rows": 90}]
)
def test_no_message_holds_a_value(elements: dict, caplog: pytest.LogCaptureFixture):
    about = {"PatientName": "MARKED", "StudyDescription": "MARKED", "WindowCenter": 5}
    content = dicom_bytes(stored_for(phantom_grey()), **{**about, **elements})
    with pytest.raises(ValueError, match=r"depth|chest|damaged") as caught:
        decode_grey(content)
    assert "MARKED" not in repr(caught.value)
    assert caught.value.__context__ is None or "MARKED" not in repr(caught.value.__context__)
    assert "MARKED" not in caplog.text


def test_a_film_is_prepared_as_a_png_of_the_same_grey(tmp_path: Path):
    about = {"WindowCenter": 1800, "WindowWidth": 3000, "PhotometricInterpretation": "MONOCHROME1"}
    film = tmp_path / "film.without-suffix"
    film.write_bytes(dicom_bytes(stored_for(phantom_grey(), **about), **about))
    png = tmp_path / "film.png"
    png.write_bytes(cv2.imencode(".png", read_grey(film))[1].tobytes())
    for bits in (0, 8, 12):
        preparation = Preparation(size=64, bits=bits)
        one, other = (prepare_file(file, preparation=preparation) for file in (film, png))
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    np.testing.assert_array_equal(decode(film.read_bytes()), decode(png.read_bytes()))


def test_the_reader_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    content = dicom_bytes(stored_for(phantom_grey()))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pip install 'lucency\[dicom\]'"):
        decode_grey(content)


@pytest.mark.parametrize("order", ["clahe-first", "resize-first", "no-clahe"])
@pytest.mark.parametrize("white", [0, 4095])
def test_padding_is_no_part_of_the_prepared_film(order: str, white: int, tmp_path: Path):
    """A film inside of padding of any value is prepared as OpenCV prepares it alone."""
    preparation = Preparation(order=order, size=208, clahe_tiles=4, brightness=9)
    about = {"WindowCenter": 1800, "WindowWidth": 3000}
    grey = cv2.resize(phantom_grey(512), (128, 128), interpolation=cv2.INTER_AREA)
    stored = np.pad(stored_for(grey, **about), 40, constant_values=white)
    file = tmp_path / "padded.dcm"
    file.write_bytes(dicom_bytes(stored, **about, PixelPaddingValue=white))
    found = prepare_file(file, preparation=preparation)
    assert isinstance(found, np.ndarray)
    inner = np.zeros((208, 208), dtype=bool)
    inner[40:-40, 40:-40] = True
    assert (found[~inner] == 0).all()
    alone = decode_grey(dicom_bytes(stored[40:-40, 40:-40], **about))
    expected = prepare_film(alone, preparation=preparation.model_copy(update={"size": 128}))
    np.testing.assert_array_equal(found[inner].reshape(128, 128), expected)
    np.testing.assert_array_equal(
        prepare_content(file.read_bytes(), preparation=preparation).pixels, found
    )


def test_copies_of_a_padded_film_leave_its_padding_out():
    """A copy that is turned over at native size is the turned film, padding and all."""
    grey = np.pad(phantom_grey(), ((0, 0), (40, 0)), constant_values=200)
    padded = np.zeros(grey.shape, dtype=bool)
    padded[:, :40] = True
    for order in ("clahe-first", "resize-first"):
        preparation = Preparation(order=order, size=64, clahe_tiles=4)
        one, other = (
            prepare_film(film, padded=mask, preparation=preparation, change=change)
            for film, mask, change in (
                (grey, padded, np.fliplr),
                (np.fliplr(grey).copy(), np.fliplr(padded), np.asarray),
            )
        )
        apart = np.abs(one.astype(int) - other)
        assert apart.max() <= 6, order  # OpenCV's CLAHE is half a pixel off its tiles' centres
        assert apart.mean() < 1, order
        assert (one[:, -15:] == 0).all()


def by_pydicom(content: bytes) -> np.ndarray:
    """Return stored values after pydicom's own steps, in their order."""
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    level = apply_modality_lut(dataset.pixel_array, dataset)
    return apply_presentation_lut(apply_voi_lut(level, dataset), dataset)


@pytest.mark.parametrize(
    ("elements", "error"),
    [
        ({"WindowCenter": 2048}, KeyError),
        ({"WindowCenter": 2048, "WindowWidth": ""}, TypeError),
        ({"WindowCenter": 2048, "WindowWidth": 0}, ValueError),
    ],
)
def test_traps_3_to_5_are_errors_of_pydicom(elements: dict, error: type[Exception]):
    content = dicom_bytes(stored_for(phantom_grey()), **elements)
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(content))
    with pytest.raises(error):
        apply_windowing(dataset.pixel_array, dataset)
    alike(content)


def test_trap_2_is_a_warning_of_pydicom():
    table = {"VOILUTSequence": Sequence([look_up_table(1500, 14)])}
    table |= {"RescaleSlope": 1, "RescaleIntercept": 0}
    content = dicom_bytes(stored_for(phantom_grey(), **table), **table)
    with pytest.warns(UserWarning, match="float"):
        by_pydicom(content)
    alike(content)


def test_trap_7_pydicom_inverts_about_the_picture():
    about = {"PresentationLUTShape": "INVERSE", "PhotometricInterpretation": "MONOCHROME1"}
    film = 60 + phantom_grey() // 2  # neither black nor white
    content = dicom_bytes(stored_for(film, **about), **about)
    assert np.abs(decode_grey(content).astype(int) - film).max() <= 1
    assert np.abs(by_pydicom(content) / 4095 * 255 - film).min() > 30


def test_trap_8_pydicom_s_ranges_are_those_of_the_step():
    window = {"BitsStored": 10, "WindowCenter": 400, "WindowWidth": 800}
    table = window | {"VOILUTSequence": Sequence([look_up_table(900, 16)])}
    for elements, top in ((window, 2**10 - 1), (table, 2**16 - 1)):
        content = dicom_bytes(stored_for(phantom_grey(), **elements), **elements)
        assert by_pydicom(content).max() == top
        alike(content)

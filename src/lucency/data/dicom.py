"""DICOM films: stored values to the grey that a display shows.

The order is that of PS3.3 C.7.6.3.1.2 and C.11: modality transformation, VOI transformation,
inversion of MONOCHROME1 about the output range. A film has at most 65,536 stored values, so that
each step is a table over them. Letters in shapes: h and w pixels of the film, v stored values.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8, UInt16

from lucency.core.memory import says_out_of_memory
from lucency.data.clahe import NOT_PADDED, Padded
from lucency.data.dicom_elements import items as _items
from lucency.data.dicom_elements import number as _number
from lucency.data.dicom_elements import numbers as _numbers
from lucency.data.dicom_elements import quiet_pydicom
from lucency.data.dicom_elements import text as _text
from lucency.data.dicom_elements import words as _words
from lucency.data.film_size import AbsurdSizeError, refuse_absurd, refuse_scans

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Values = Float64[np.ndarray, " v"]

PREAMBLE, MAGIC = 128, b"DICM"
DEEPEST = 16
MOST_INFLATED, MOST_TIMES = 1 << 27, 100  # bytes of a deflated film, and how often those stored
NOT_SUSPECT = 1 << 24  # bytes: what inflates to less is read, however small it was
MOST_READS, MOST_ITEMS = 100_000, 4096  # of a stream, of all sequences that are read
ITEM, ITEM_BIG_ENDIAN = b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"
MOST_LEVEL = 1e12
LEVELS = {
    "RescaleSlope": "(0028,1053)", "RescaleIntercept": "(0028,1052)",
    "WindowCenter": "(0028,1050)", "WindowWidth": "(0028,1051)",
}  # fmt: skip
SEQUENCES = ("ModalityLUTSequence", "VOILUTSequence")
ABSURD_ITEMS = f"absurd size: more than {MOST_ITEMS:,} items of DICOM sequences"
TAILS = (0.5, 99.5)  # percentiles between which a film without any window is shown
RAW_SPAN = 0.5  # of the stored range: a film that uses less, and states no P-values, is raw
CHEST = ("CHEST", "THORAX", "TORAX", "LUNG")
DIRECTORY = "1.2.840.10008.1.3.10"
STORAGE = "1.2.840.10008.5.1.4.1.1."
FOR_PROCESSING, SECONDARY = f"{STORAGE}1.1.1", f"{STORAGE}7"
RADIOGRAPHS = (f"{STORAGE}1", f"{STORAGE}1.1", SECONDARY)
PLAIN = ("CR", "DX", "RG", "OT", "")  # modalities of a secondary capture of a plain film
JPEG_SIZES = (frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}  # 0xF7: JPEG-LS
DECODERS = ("pydicom", "pylibjpeg", "pyjpegls", "pillow", "gdcm")  # of pydicom, first preferred
UNCOMPRESSED = tuple(f"1.2.840.10008.1.2{rest}" for rest in ("", ".1", ".1.99", ".2"))
CODESTREAM = b"\xff\x4f\xff\x51"  # how JPEG 2000 begins
JPEG = b"\xff\xd8"  # and JPEG and JPEG-LS
READ = (
    "SOPClassUID", "Modality", "PresentationIntentType", "BodyPartExamined", "PatientOrientation",
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows",
    "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "RescaleIntercept", "RescaleSlope", "RescaleType",
    "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "PresentationLUTShape", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PixelData",
)  # fmt: skip
TRUNCATED = "truncated: the DICOM file ends within an element"
UNDECODABLE = (
    "damaged: its pixels cannot be decoded, or are not as many as Rows (0028,0010) and Columns "
    "(0028,0011) say"
)
NOT_SHOWN = "damaged: an element that states how its pixels are shown is of no kind that DICOM has"
NO_DECODER = (
    "no decoder of its TransferSyntaxUID (0002,0010) and BitsStored (0028,0101): pip install "
    "'lucency[dicom]' brings those of RLE, JPEG of eight bits, JPEG lossless, JPEG-LS, JPEG 2000"
)
BROKEN = (  # what pydicom and the decoders raise for files that are not as they should be
    ArithmeticError, AttributeError, EOFError, ImportError, LookupError, NotImplementedError,
    OSError, RuntimeError, TypeError, ValueError, struct.error, zlib.error,
)  # fmt: skip


class GreyFilm(NamedTuple):
    """A film in eight bits, and which of its pixels are padding, none of it, and 0 (if any are)."""

    grey: UInt8[np.ndarray, "h w"]
    padded: Padded = NOT_PADDED


class DeepFilm(NamedTuple):
    """A film before it is brought to eight bits: brighter is larger, whatever was stored.

    A display shows `low` and less black, `high` and more white, and is linear between. `voi` says
    what they come from: "lut", "window", "stored range" or "percentiles". `padded` pixels are no
    part of the film and 0. `mirrored`: the file holds the film mirrored (PatientOrientation R\\F),
    the pixels here are mirrored back.
    """

    pixels: UInt16[np.ndarray, "h w"]
    bits: int
    low: float
    high: float
    voi: str
    padded: Bool[np.ndarray, "h w"]
    mirrored: bool


class _Stream(BytesIO):
    """A file's content that ends where there is more to read than any film has.

    `problem` is why it did; `is_cut` whether more was read than there is. pydicom reads the rest of
    a file at once in one case: a deflated one, whatever its header says.
    """

    reads, problem, is_cut = 0, "", False

    def __init__(self, content: bytes):
        super().__init__(content)
        self.length = len(content)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, none where there is a problem."""
        self.reads += 1
        rest = super().read(size)
        if size is None or size < 0:
            self.problem, self.is_cut = _inflated(rest)
        elif self.reads > MOST_READS:
            self.problem = f"absurd size: more than {MOST_READS:,} DICOM elements"
        elif len(rest) < size:  # behind the last element pydicom looks for eight bytes of another
            self.is_cut |= bool(rest) or size != 8 or self.tell() > self.length
        return b"" if self.problem else rest


class _Film(NamedTuple):
    """A film as places in its stored values, and what these are: padding, or pixels by a table."""

    place: UInt16[np.ndarray, "h w"]
    padding: Bool[np.ndarray, " v"]
    table: UInt16[np.ndarray, " v"]
    bits: int
    low: float
    high: float
    voi: str
    mirrored: bool


class _Shown(NamedTuple):
    """How stored values are shown: `level`, shown black at `low` and less, white from `high` on."""

    level: Values
    low: float
    high: float
    voi: str


def is_dicom(content: bytes) -> bool:
    """Return whether the content is of a DICOM file (PS3.10: "DICM" behind 128 bytes)."""
    return content[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC


def decode_dicom(content: bytes) -> GreyFilm:
    """Return the grey of a DICOM file's content as a display shows it at first, in eight bits.

    Window and look-up table: the first item of VOILUTSequence, else the first window, else the full
    stored range; the range between percentiles TAILS where the film states no P-values and uses
    less than RAW_SPAN of the stored range. MONOCHROME1 is inverted last. Padding is black. A film
    stored mirrored (PatientOrientation R\\F) is mirrored back.
    Raises ValueError with the reason, in tags and never in values of elements, for a file that is
    not a whole, single, grey, plain film of a chest for presentation, or of an absurd size, which
    is never allocated; and where pydicom or a decoder is absent.
    """
    film = _film(content)
    table = _eight_bits(film.table, film.low, film.high)
    table[film.padding] = 0
    padded = film.padding.take(film.place) if film.padding.any() else NOT_PADDED
    return GreyFilm(table.take(film.place), padded)


def eight_bits(film: DeepFilm) -> UInt8[np.ndarray, "h w"]:
    """Return a deep film by its window: 0 at `low` and less and in padding, 255 from `high` on."""
    every = np.arange(1 << DEEPEST, dtype=np.uint16)
    grey = _eight_bits(every, film.low, film.high).take(film.pixels)
    grey[film.padded] = 0
    return grey


def decode_dicom_deep(content: bytes) -> DeepFilm:
    """Return a DICOM film at its native depth with the window it is shown in at first.

    A linear window leaves the stored values, rescaled (of a Modality LUT, its output), so that any
    other may be chosen. Where those are no whole numbers, as by a fractional RescaleSlope, and of a
    VOI LUT or a SIGMOID, what lies between the window's ends is scaled to 16 bits.
    Raises ValueError as `decode_dicom` does.
    """
    film = _film(content)
    pixels, padded = film.table.take(film.place), film.padding.take(film.place)
    pixels[padded] = 0
    return DeepFilm(pixels, film.bits, film.low, film.high, film.voi, padded, film.mirrored)


def _film(content: bytes) -> _Film:
    header, place = _read(content)
    try:
        return _as_shown(header, place)
    except ValueError:  # with its reason
        raise
    except BROKEN as error:
        if says_out_of_memory(error):
            raise
        raise ValueError(NOT_SHOWN) from None


def _as_shown(header: Dataset, place: UInt16[np.ndarray, "h w"]) -> _Film:
    _refuse_levels(header)
    lowest, count = _domain(header)
    padding = _padding(header, lowest, count)
    stored = np.arange(lowest, lowest + count, dtype=np.float64)
    shown = _show(header, stored, lambda: np.bincount(place.ravel(), minlength=count) * ~padding)
    table, bits, low, high = _table(shown, inverted=_inverted(header))
    mirrored = _words(header, "PatientOrientation") == ["R", "F"]
    place = place[:, ::-1] if mirrored else place
    return _Film(place, padding, table, bits, low, high, shown.voi, mirrored)


def _refuse_levels(header: Dataset) -> None:
    """Raise ValueError for a number of LEVELS that no film has, which sums and products exceed."""
    for name, tag in LEVELS.items():
        if max(map(abs, _numbers(header, name)), default=0.0) > MOST_LEVEL:
            raise ValueError(f"damaged: a number of {name} {tag} is beyond {MOST_LEVEL:g}")


def _eight_bits(
    pixels: UInt16[np.ndarray, " v"], low: float, high: float
) -> UInt8[np.ndarray, " v"]:
    return np.rint(255 * _between(pixels.astype(np.float64), low, high)).astype(np.uint8)


def _read(content: bytes) -> tuple[Dataset, UInt16[np.ndarray, "h w"]]:
    """Return the elements of READ and the stored values' places; others are not read."""
    try:
        import pydicom
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError as error:
        raise ValueError("a DICOM film: reading it needs pip install 'lucency[dicom]'") from error

    if not is_dicom(content):
        raise ValueError("not a DICOM file: no DICM behind its preamble")
    if len(content) < PREAMBLE + len(MAGIC) + 12:
        raise ValueError(TRUNCATED)
    stream, broken = _Stream(content), (*BROKEN, BytesLengthException, InvalidDicomError)
    with quiet_pydicom():
        try:
            header = pydicom.dcmread(stream, specific_tags=list(READ))
            stream.problem = stream.problem or _why_not_converted(header)
            problem = why_left_out(header)
            size = (0, 0) if problem else (int(header["Columns"].value), int(header["Rows"].value))
        except broken as error:
            raise ValueError(_why_unreadable(stream, error)) from None
        if stream.problem or problem:
            cut = stream.is_cut and "PixelData" not in header
            raise ValueError(stream.problem or (TRUNCATED if cut else problem))
        refuse_absurd(*size, held=len(content))
        try:
            return header, _stored(header, size)
        except BROKEN as error:
            absurd = str(error) if isinstance(error, AbsurdSizeError) else ""
            raise ValueError(absurd or (TRUNCATED if stream.is_cut else UNDECODABLE)) from None


def _inflated(content: bytes) -> tuple[str, bool]:
    """Return why a deflated content is no film's, "" for one that may be, and whether it is cut.

    Nothing of it is kept. What is not deflated is neither.
    """
    inflater, rest, total, items = zlib.decompressobj(-zlib.MAX_WBITS), content, 0, 0
    most = max(NOT_SUSPECT, min(MOST_INFLATED, MOST_TIMES * len(content)))
    while rest and not inflater.eof:
        try:
            block = inflater.decompress(rest, 1 << 20)
        except zlib.error:
            return "", False
        total, items, rest = total + len(block), items + block.count(ITEM), inflater.unconsumed_tail
        if total > most:
            return f"absurd size: it inflates to more than {most:,} bytes", False
        if items > MOST_ITEMS:
            return ABSURD_ITEMS, False
    return "", not inflater.eof


def _why_not_converted(header: Dataset) -> str:
    """Return why elements are not converted to values, as each is when it is first seen, or ""."""
    held = [header.get_item(name).value for name in SEQUENCES if name in header]
    packed = [value for value in held if isinstance(value, bytes)]
    if sum(value.count(ITEM) + value.count(ITEM_BIG_ENDIAN) for value in packed) > MOST_ITEMS:
        return ABSURD_ITEMS
    deque(header.iterall(), maxlen=0)
    return ""


def _why_unreadable(stream: _Stream, error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "damaged: its DICOM sequences lie too deep in each other"
    damaged = "damaged: its DICOM elements cannot be read"
    return stream.problem or (TRUNCATED if stream.is_cut else damaged)


def why_left_out(header: Dataset) -> str:
    """Return why a file is no film that a network of chest films may see, "" for one that is."""
    kind = _text(header, "SOPClassUID")
    if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DIRECTORY:
        return "a DICOMDIR: an index of films, not a film"
    if kind.startswith(FOR_PROCESSING) or "PROCESSING" in _text(header, "PresentationIntentType"):
        return "raw data of a detector: PresentationIntentType (0008,0068) is FOR PROCESSING"
    if kind and kind not in RADIOGRAPHS:
        return "no plain film: SOPClassUID (0008,0016) is none of CR, DX and secondary capture"
    if kind in (SECONDARY, "") and _text(header, "Modality") not in PLAIN:
        return "no plain film: Modality (0008,0060) is of another kind of picture"
    part = _text(header, "BodyPartExamined").upper()
    if part and not any(word in part for word in CHEST):
        return "not of the chest: BodyPartExamined (0018,0015) is another part"
    return _why_no_pixels(header)


def _why_no_pixels(header: Dataset) -> str:
    """Return why the pixels of a file are not those of one grey film, "" where they are."""
    if "PixelData" not in header:
        return "no pixels: PixelData (7FE0,0010) is absent"
    if _number(header, "NumberOfFrames", 1.0) > 1:
        return "several frames: NumberOfFrames (0028,0008) is more than one"
    grey = _text(header, "PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
    if not grey or _number(header, "SamplesPerPixel", 1.0) != 1:
        return (
            "in colour: PhotometricInterpretation (0028,0004) is neither MONOCHROME1 nor "
            "MONOCHROME2, or SamplesPerPixel (0028,0002) is not 1"
        )
    allocated = _number(header, "BitsAllocated", 0.0)
    if allocated not in (8, DEEPEST) or not 1 <= _number(header, "BitsStored", 0.0) <= allocated:
        return (
            "of another depth: expected BitsAllocated (0028,0100) of 8 or 16, and BitsStored "
            "(0028,0101) not above it"
        )
    stored = _number(header, "BitsStored", 0.0)
    if _number(header, "HighBit", stored - 1) != stored - 1:
        return "of another depth: HighBit (0028,0102) is not one less than BitsStored (0028,0101)"
    return "" if _decoders(header) else NO_DECODER


def _stored(header: Dataset, size: tuple[int, int]) -> UInt16[np.ndarray, "h w"]:
    """Return the stored values as places in the range of them, 0 for the lowest.

    Bits above BitsStored, where old files keep overlays, are cut. Raises one of BROKEN where the
    pixels are not those of the header, and AbsurdSizeError for too many scans.
    """
    header.setdefault("PixelRepresentation", 0)
    header.setdefault("SamplesPerPixel", 1)
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        from pydicom.encaps import get_frame

        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        if _stream_size(frame) not in (None, size):
            raise ValueError
        if frame.startswith(JPEG):
            refuse_scans(frame)
        header.pixel_array_options(decoding_plugin=min(_decoders(header), key=DECODERS.index))
    pixels = header.pixel_array
    if pixels.shape != size[::-1]:
        raise ValueError
    lowest, count = _domain(header)
    place = pixels.astype(np.uint16, copy=False) + np.uint16(-lowest % count)
    place &= np.uint16(count - 1)
    return place


def _decoders(header: Dataset) -> list[str]:
    """Return the installed decoders of a film's pixels, pydicom itself for those as they are.

    Broken frames end the process in gdcm, which is the last choice, and panic in pylibjpeg's RLE.
    Pillow reads eight bits, and none more than that of the lossy JPEG.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = header.file_meta.get("TransferSyntaxUID", "")
    if syntax in UNCOMPRESSED:
        return ["pydicom"]
    try:
        able = get_decoder(syntax).available_plugins
    except NotImplementedError:
        return []
    if syntax == JPEGExtended12Bit and _number(header, "BitsStored", 0.0) > 8:
        return []
    return [one for one in able if one != "pillow" or header.BitsAllocated == 8]


def _stream_size(frame: bytes) -> tuple[int, int] | None:
    """Return width and height by the header of a JPEG or JPEG 2000 stream, None for another."""
    boxed = frame[4:8] == b"jP  "  # a JP2 file around it
    codestream = frame.find(CODESTREAM) if boxed else 0 if frame.startswith(CODESTREAM) else -1
    if codestream >= 0:
        right, bottom, left, top = struct.unpack_from(">IIII", frame, codestream + 8)
        return right - left, bottom - top
    place = 2
    while frame.startswith(JPEG) and place + 9 <= len(frame):
        marker, length = struct.unpack_from(">xBH", frame, place)
        if marker in JPEG_SIZES:
            height, width = struct.unpack_from(">HH", frame, place + 5)
            return width, height
        place += 1 if marker == 0xFF else 2 + length
    return None


def _domain(header: Dataset) -> tuple[int, int]:
    """Return the lowest stored value and the number of them."""
    count = 2 ** int(header.BitsStored)
    return (-count // 2 if header.PixelRepresentation else 0), count


def _padding(header: Dataset, lowest: int, count: int) -> Bool[np.ndarray, " v"]:
    """Return which stored values are padding: one value, or all up to the range's limit."""
    first = _signed(header, "PixelPaddingValue")
    if first is None:
        return np.zeros(count, dtype=np.bool_)
    last = _signed(header, "PixelPaddingRangeLimit")
    low, high = sorted((first, first if last is None else last))
    value = np.arange(lowest, lowest + count)
    return (value >= low) & (value <= high)


def _signed(header: Dataset, name: str) -> int | None:
    """Return a value of VR "US or SS" by PixelRepresentation, None where there is none."""
    value = header[name].value if name in header else None
    if isinstance(value, bytes) and len(value) == 2:
        value = struct.unpack("<H", value)[0]
    if not isinstance(value, int):
        return None
    value &= 0xFFFF
    return value - 0x10000 if header.PixelRepresentation and value > 0x7FFF else value


def _show(header: Dataset, stored: Values, count: Callable[[], Int64[np.ndarray, " v"]]) -> _Shown:
    """Return the levels of stored values and between which of them a display is linear.

    `count` returns how many pixels have each value.
    """
    level, ends = _modality(header, stored)
    if tables := _items(header, "VOILUTSequence"):
        table, lowest, most = _lut(tables[0], signed=bool(level.min() < 0))
        return _Shown(_look_up(level, table, lowest), 0.0, most, "lut")
    if window := _window(header):
        centre, width, function = window
        if function == "SIGMOID":
            return _Shown(_logistic(4 * (level - centre) / width), 0.0, 1.0, "window")
        half = width / 2 if function == "LINEAR_EXACT" else (width - 1) / 2
        middle = centre if function == "LINEAR_EXACT" else centre - 0.5
        return _Shown(level, middle - half, middle + half, "window")
    if not _p_values(header) and (used := count()).any():
        order = np.argsort(level, kind="stable")
        share = np.cumsum(used[order]) / used.sum()
        low, high = (level[order[np.searchsorted(share, tail / 100)]] for tail in TAILS)
        if low < high < low + RAW_SPAN * (ends[1] - ends[0]):
            return _Shown(level, float(low), float(high), "percentiles")
    return _Shown(level, *ends, "stored range")


def _modality(header: Dataset, stored: Values) -> tuple[Values, tuple[float, float]]:
    """Return the modality's levels of stored values, and their range."""
    if tables := _items(header, "ModalityLUTSequence"):
        table, lowest, most = _lut(tables[0], signed=bool(stored[0] < 0))
        return _look_up(stored, table, lowest), (0.0, most)
    slope = _number(header, "RescaleSlope", 1.0) or 1.0
    level = stored * slope + _number(header, "RescaleIntercept", 0.0)
    return level, (float(level.min()), float(level.max()))


def _lut(item: Dataset, *, signed: bool) -> tuple[Int64[np.ndarray, " e"], int, float]:
    """Return a look-up table's entries, the level of the first, and its greatest output.

    Entries of eight bits may lie two to a word (PS3.3 C.11.1.1.1).
    """
    try:
        count, first, bits = (int(value) & 0xFFFF for value in _descriptor(item))
        entries, held = count or 1 << 16, item.LUTData
        if isinstance(held, bytes):
            packed = bits == 8 and len(held) <= entries + 1
            word = "<u2" if item.original_encoding[1] is not False else ">u2"
            table = np.frombuffer(held, dtype=np.uint8 if packed else word)
        else:
            table = np.atleast_1d(np.asarray(held, dtype=np.int64)) & 0xFFFF
        table = table[:entries].astype(np.int64)
    except BROKEN:
        table, first, bits = np.empty(0, np.int64), 0, 0
    if not len(table) or not 8 <= bits <= DEEPEST:
        raise ValueError(
            "damaged: a look-up table has no LUTData (0028,3006), or no LUTDescriptor (0028,3002) "
            "of three numbers with 8 to 16 bits"
        )
    lowest = first - 0x10000 if signed and first > 0x7FFF else first
    return table, lowest, float(max(2**bits - 1, table.max()))


def _descriptor(item: Dataset) -> list[int]:
    held = item["LUTDescriptor"].value
    return list(struct.unpack("<3H", held)) if isinstance(held, bytes) else list(held)


def _look_up(level: Values, table: Int64[np.ndarray, " e"], lowest: int) -> Values:
    """Return the table's entries at levels; beyond its ends, those of its ends.

    pydicom 3.0.2 indexes tables of eight bits with eight bits, so that longer ones wrap.
    """
    place = np.rint(level).astype(np.int64) - lowest
    return table[np.clip(place, 0, len(table) - 1)].astype(np.float64)


def _window(header: Dataset) -> tuple[float, float, str] | None:
    """Return centre, width and function of the first window, None for none that is whole."""
    centre, width = _numbers(header, "WindowCenter"), _numbers(header, "WindowWidth")
    function = _text(header, "VOILUTFunction").upper() or "LINEAR"
    least = 1 if function == "LINEAR" else 1e-9
    return (centre[0], width[0], function) if centre and width and width[0] >= least else None


def _p_values(header: Dataset) -> bool:
    stated = _text(header, "RescaleType").upper().startswith("P-VALUE")
    return stated or bool(_text(header, "PresentationLUTShape"))


def _inverted(header: Dataset) -> bool:
    """Return whether the smallest value is white.

    PresentationLUTShape states the same inversion twice, and PixelIntensityRelationshipSign states
    another thing: neither is followed.
    """
    return _text(header, "PhotometricInterpretation") == "MONOCHROME1"


def _table(shown: _Shown, *, inverted: bool) -> tuple[UInt16[np.ndarray, " v"], int, float, float]:
    """Return stored values' pixels, brighter larger, their bits, and the ends of the window."""
    level, low, high = shown.level, shown.low, shown.high
    whole = bool((level == np.rint(level)).all()) and np.ptp(level) < 2**DEEPEST
    if shown.voi == "lut" or not whole:  # nothing lies beyond the ends, or steps are too fine
        level, low, high = (2**DEEPEST - 1) * _between(level, low, high), 0.0, 2.0**DEEPEST - 1
    least, most = float(np.floor(level.min())), float(np.ceil(level.max()))
    if inverted:
        level, low, high, least, most = -level, -high, -low, -most, -least
    bits = max(8, int(most - least).bit_length())
    pixels = np.clip(np.rint(level - least), 0, 2**DEEPEST - 1).astype(np.uint16)
    return pixels, min(bits, DEEPEST), low - least, high - least


def _between(
    level: Float64[np.ndarray, "*s"], low: float, high: float
) -> Float64[np.ndarray, "*s"]:
    """Return where levels lie between two of them, 0 to 1; a window of no width is a step."""
    if high <= low:
        return (level > low).astype(np.float64)
    return np.clip((level - low) / (high - low), 0, 1)


def _logistic(value: Values) -> Values:
    return 1 / (1 + np.exp(-np.clip(value, -700, 700)))

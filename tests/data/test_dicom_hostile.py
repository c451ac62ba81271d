"""DICOM files that are cut, damaged or made to harm, and every file of pydicom: one clear line."""

import importlib.util
import resource
import struct
import time
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_films import dicom_bytes, look_up_table, phantom_grey, stored_for
from lucency.data.dicom import decode_dicom
from lucency.data.dicom_facts import read_header
from lucency.data.images import decode_film
from lucency.data.pseudonyms import fleeting_key
from torture.hostile_dicom import NUMBERS, SEQUENCES, films, of_another_kind

ITEM, ITEM_END, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
VOI, PRIVATE, OTHER = (0x28, 0x3010), (0x29, 0x1010), (0x40, 0x275)
PIXELS = b"\xe0\x7f\x10\x00OW"
ENDLESS = struct.pack("<I", 0xFFFFFFFF)
MOST_SECONDS, MOST_BYTES = 10, 400_000_000
TABLE = {"VOILUTSequence": Sequence([look_up_table(600, 12)])}


@pytest.fixture(scope="module")
def plain() -> bytes:
    return dicom_bytes(stored_for(phantom_grey()))


@pytest.fixture
def bounded() -> Iterator[None]:
    """Hold a test to MOST_SECONDS and MOST_BYTES beyond what there is."""
    started, most = time.process_time(), most_memory()
    yield
    assert time.process_time() - started < MOST_SECONDS
    assert most_memory() - most < MOST_BYTES


def most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reason_of(content: bytes) -> str:
    """Return why a film is not read, in one line, "" for one that is; nothing else may happen."""
    try:
        assert decode_film(content).grey.size
    except ValueError as error:
        reason = str(error)
        return reason if reason.isprintable() and reason else pytest.fail(repr(reason))
    return ""


def before_pixels(content: bytes, inserted: bytes) -> bytes:
    place = content.index(PIXELS)
    return content[:place] + inserted + content[place:]


def sequence(tag: tuple[int, int], items: bytes, *, endless: bool) -> bytes:
    if endless:
        return struct.pack("<HH", *tag) + b"SQ\0\0" + ENDLESS + items + SEQUENCE_END + bytes(4)
    return struct.pack("<HH", *tag) + b"SQ\0\0" + struct.pack("<I", len(items)) + items


def nested(tag: tuple[int, int], *, depth: int, endless: bool) -> bytes:
    inner = b""
    for _ in range(depth):
        if endless:
            item = ITEM + ENDLESS + inner + ITEM_END + bytes(4)
        else:
            item = ITEM + struct.pack("<I", len(inner)) + inner
        inner = sequence(tag, item, endless=endless)
    return inner


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("endless", [True, False])
@pytest.mark.parametrize("tag", [VOI, PRIVATE, OTHER], ids=["voi", "private", "other"])
def test_a_thousand_nested_sequences(plain: bytes, tag: tuple[int, int], endless: bool):
    content = before_pixels(plain, nested(tag, depth=1000, endless=endless))
    if tag != VOI and not endless:  # stepped over
        np.testing.assert_array_equal(decode_dicom(content).grey, decode_dicom(plain).grey)
        return
    # Which of the two depends on how deep Python's stack is already.
    damaged = "damaged: its DICOM (sequences lie too deep|elements cannot be read)"
    with pytest.raises(ValueError, match=damaged):
        decode_dicom(content)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("endless", [True, False])
def test_a_million_items(plain: bytes, endless: bool):
    many = sequence(VOI, (ITEM + bytes(4)) * 1_000_000, endless=endless)
    with pytest.raises(ValueError, match=r"absurd size: more than [\d,]+ (items|DICOM elements)"):
        decode_dicom(before_pixels(plain, many))


@pytest.mark.usefixtures("bounded")
def test_a_million_elements(plain: bytes):
    groups = (struct.pack("<HH", 0x29 + 2 * (n >> 12), 0x1000 + n % 4096) for n in range(1_000_000))
    content = before_pixels(plain, b"".join(tag + b"LO\0\0" for tag in groups))
    with pytest.raises(ValueError, match=r"absurd size: more than 100,000 DICOM elements"):
        decode_dicom(content)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("block", [bytes(1 << 20), (ITEM + bytes(4)) * (1 << 17)])
def test_a_megabyte_that_inflates_to_a_gigabyte(block: bytes):
    made = dicom_bytes(stored_for(phantom_grey()), syntax=DeflatedExplicitVRLittleEndian)
    end, packer = 144 + struct.unpack_from("<I", made, 140)[0], zlib.compressobj(wbits=-15)
    packed = packer.compress(block) + packer.flush(
        zlib.Z_FULL_FLUSH
    )  # blocks may follow each other
    with pytest.raises(ValueError, match="absurd size: "):
        decode_dicom(made[:end] + packed * 1024 + zlib.compressobj(wbits=-15).flush())


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless,
        DeflatedExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless,
    ],
)  # fmt: skip
def test_a_film_cut_in_half_is_truncated(syntax: str):
    content = dicom_bytes(stored_for(phantom_grey()), syntax=syntax)
    for end in (len(content) // 2, len(content) - 900, len(content) - 3001):
        with pytest.raises(ValueError, match=r"^truncated: the DICOM file ends"):
            decode_dicom(content[:end])


def test_a_film_cut_behind_its_pixels_is_whole(plain: bytes):
    content = plain + b"\xfc\xff\xfc\xffOB\0\0" + struct.pack("<I", 100) + bytes(100)
    np.testing.assert_array_equal(decode_dicom(content[:-50]).grey, decode_dicom(plain).grey)


@pytest.mark.parametrize("tag", SEQUENCES)
@pytest.mark.parametrize("vr", list(NUMBERS))
def test_a_number_in_place_of_a_sequence_states_nothing(
    tag: tuple[int, int], vr: bytes, tmp_path: Path
):
    film = tmp_path / "film.dcm"
    film.write_bytes(of_another_kind(tag, vr))
    np.testing.assert_array_equal(
        decode_dicom(film.read_bytes()).grey, decode_dicom(films()[1]).grey
    )
    assert read_header(film, key=fleeting_key()).reason == ""


def test_what_cannot_be_shown_is_damaged_but_for_memory(
    plain: bytes, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, error: Exception) -> None:
        raise error

    monkeypatch.setattr("lucency.data.dicom._show", partial(broken, error=TypeError("P1")))
    with pytest.raises(ValueError, match=r"^damaged: an element that states how") as caught:
        decode_dicom(plain)
    assert "P1" not in str(caught.value)
    memory = RuntimeError("failed to allocate")
    monkeypatch.setattr("lucency.data.dicom._show", partial(broken, error=memory))
    with pytest.raises(RuntimeError, match="failed to allocate"):
        decode_dicom(plain)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEG2000Lossless]
)
def test_changed_bytes_give_a_picture_or_a_reason(syntax: str):
    content = dicom_bytes(stored_for(phantom_grey(), **TABLE), syntax=syntax, **TABLE)
    rng, reasons = np.random.default_rng(5), set[str]()
    for _ in range(300):
        changed = np.frombuffer(content, dtype=np.uint8).copy()
        places = rng.integers(132, len(changed), rng.choice((1, 2, 20)))
        changed[places] = rng.integers(0, 256, len(places))
        end = rng.choice((len(changed), rng.integers(132, len(changed))))
        reasons.add(reason_of(changed[:end].tobytes()).split(":")[0])
    assert {"truncated", "damaged"} <= reasons


def corpus() -> list[Path]:
    """Return every DICOM file that pydicom and pydicom-data bring."""
    store = importlib.util.find_spec("data_store")
    assert store is not None
    assert store.origin is not None
    roots = (Path(pydicom.__file__).parent / "data", Path(store.origin).parent)
    found = (file for root in roots for file in sorted(root.rglob("*")) if file.is_file())
    return [file for file in found if file.read_bytes()[128:132] == b"DICM"]


def test_every_file_of_pydicom_gives_a_picture_or_a_reason():
    files, reasons = corpus(), dict[str, str]()
    assert len(files) > 200
    for file in files:
        started = time.process_time()
        reasons[file.name] = reason_of(file.read_bytes())
        assert time.process_time() - started < 20, file.name
    for kind in ("UNCI", "UNCR", "J2KI", "J2KR"):
        assert reasons[f"RG1_{kind}.dcm"] == ""
        assert reasons[f"RG3_{kind}.dcm"].startswith("not of the chest: BodyPartExamined")
    assert reasons["mlut_18.dcm"] == reasons["vlut_04.dcm"] == ""
    assert reasons["DICOMDIR"].startswith("a DICOMDIR")
    assert sum(one == "" for one in reasons.values()) >= 19


@pytest.mark.filterwarnings("ignore")
def test_every_file_of_pydicom_as_a_film(monkeypatch: pytest.MonkeyPatch):
    """Also of other kinds of pictures come the pixels, or their reason."""
    monkeypatch.setattr("lucency.data.dicom.why_left_out", lambda _: "")
    small = [one for one in corpus() if one.stat().st_size < 3_000_000]  # of many frames is slow
    reasons = [reason_of(file.read_bytes()) for file in small]
    assert reasons.count("") > 40

"""Films in archives: the bytes of the unpacked folder; names, damage and bombs do no harm."""

import gzip
import io
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from dicom_films import dicom_bytes, stored_for
from lucency.config.sections import Source
from lucency.core.manifest import Manifest, Preparation, Prepared, load_prepared
from lucency.core.plan import clones
from lucency.data import film_archives
from lucency.data.bit_depth import find_bits
from lucency.data.film_archives import archive_of
from lucency.data.film_cache import prepare
from lucency.data.film_files import film_exists, films_in, in_reading_order, load_film, stat_film
from lucency.data.film_names import folder_of, member_of, name_below
from lucency.data.film_size import LARGEST_FILE
from lucency.data.film_stream import stream_films
from lucency.data.images import film_files as found_below
from lucency.data.images import films_below, read_grey
from lucency.data.sources import read_films
from lucency.models.augmentation import load_copies, make_copies
from lucency.phantom.dataset import write_phantom
from time_limit import within
from torture.hostile_archives import extended_size, quoting
from toys import manifest_of

FILMS = 40
SECONDS = 20.0  # in which an archive is listed, beside other work
SMALL = Preparation(size=32, clahe_tiles=4)
Pack = Callable[[Path, list[Path]], list[Path]]


def pack_zip(method: int) -> Pack:
    def pack(folder: Path, films: list[Path]) -> list[Path]:
        with zipfile.ZipFile(folder / "images.zip", "w", method) as archive:
            for film in films:
                archive.write(film, f"images/{film.name}")
        return [folder / "images.zip"]

    return pack


def pack_tar(suffix: str, *, parts: int) -> Pack:
    def pack(folder: Path, films: list[Path]) -> list[Path]:
        made = []
        for part in range(parts):
            place = folder / f"images_{part + 1:03d}{suffix}"
            with tarfile.open(place, f"w:{suffix.removeprefix('.tar').removeprefix('.')}") as to:
                for film in sorted(films[part::parts], reverse=True):  # not in the labels' order
                    to.add(film, f"images/{film.name}")
            made.append(place)
        return made

    return pack


PACKS: dict[str, Pack] = {
    "zip": pack_zip(zipfile.ZIP_DEFLATED),
    "stored zip": pack_zip(zipfile.ZIP_STORED),
    "tar": pack_tar(".tar", parts=2),
    "tar.gz": pack_tar(".tar.gz", parts=3),
    "tar.bz2": pack_tar(".tar.bz2", parts=1),
    "tar.xz": pack_tar(".tar.xz", parts=1),
}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    write_phantom(folder, films=FILMS, size=64, seed=3)
    return folder


@pytest.fixture(scope="module")
def whole(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_of(unpacked, tmp_path_factory.mktemp("whole"))


@pytest.fixture(autouse=True)
def nothing_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins as a process does, without a list of any archive."""
    monkeypatch.setattr(film_archives, "_LISTED", {})


def packed(unpacked: Path, folder: Path, pack: Pack) -> list[Path]:
    """Pack the films below `folder`, and lay the label files beside."""
    folder.mkdir(exist_ok=True)
    for table in unpacked.glob("*.*"):
        (folder / table.name).write_bytes(table.read_bytes())
    return pack(folder, sorted((unpacked / "images").glob("*.png")))


def films_of(root: Path, out: Path, **changes: object) -> Manifest:
    choices = {"source": "nih", "root": str(root), **changes}
    return read_films(Source.model_validate(choices), findings=("Mass",), out=out / "manifest")


def prepared_of(root: Path, out: Path, *, workers: int = 1) -> Prepared:
    films = films_of(root, out)
    return prepare(films, preparation=SMALL, out=out / "prepared", workers=workers)


def cache_of(out: Path) -> bytes:
    return np.asarray(load_prepared(out / "prepared").pixels).tobytes()


def write_zip(file: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file


def write_tar(file: Path, members: list[tuple[str, bytes]], *, mode: str = "w:gz") -> Path:
    with tarfile.open(file, mode, errors="surrogateescape") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def png(number: int = 0) -> bytes:
    noise = np.random.default_rng(number).integers(0, 256, (40, 40), dtype=np.uint8)
    return cv2.imencode(".png", noise)[1].tobytes()


@contextmanager
def most_memory(limit: int) -> Iterator[None]:
    """Hold that no more than so many bytes are allocated at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


# --- the same cache --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "workers"), [*((kind, 1) for kind in PACKS), ("zip", 2), ("tar.gz", 2)]
)
def test_an_archive_gives_the_bytes_of_the_folder(
    unpacked: Path, whole: Prepared, tmp_path: Path, kind: str, workers: int
):
    packed(unpacked, tmp_path / "root", PACKS[kind])
    made = prepared_of(tmp_path / "root", tmp_path, workers=workers)
    np.testing.assert_array_equal(made.pixels, whole.pixels)
    facts = ["path"]
    pd.testing.assert_frame_equal(
        made.manifest.facts.drop(columns=facts), whole.manifest.facts.drop(columns=facts)
    )
    np.testing.assert_array_equal(made.manifest.image, whole.manifest.image)
    assert len(made.rejected) == 0
    assert not (tmp_path / "root" / "images").exists(), "nothing is unpacked"


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_interrupted_and_resumed_gives_the_same_bytes(
    unpacked: Path, whole: Prepared, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    packed(unpacked, tmp_path / "root", PACKS[kind])
    films = films_of(tmp_path / "root", tmp_path)

    def stop(done: int, total: int) -> None:
        if 0 < done < total:
            raise KeyboardInterrupt

    again = {"preparation": SMALL, "out": tmp_path / "prepared", "workers": 1}
    with pytest.raises(KeyboardInterrupt):
        prepare(films, **again, progress=stop)
    monkeypatch.setattr(film_archives, "_LISTED", {})  # as another process
    films, first = films_of(tmp_path / "root", tmp_path), []
    made = prepare(films, **again, progress=lambda done, _: first.append(done))
    assert 0 < first[0] < FILMS
    np.testing.assert_array_equal(made.pixels, whole.pixels)


def test_a_run_goes_on_with_archives_instead_of_the_folder_and_back(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Their films are as large; those of another time are compared by content."""
    made = prepared_of(unpacked, tmp_path)
    places = packed(unpacked, tmp_path / "root", PACKS["tar.gz"])
    films = replace(
        made.manifest,
        facts=films_of(tmp_path / "root", tmp_path / "again").facts,
    )
    again = prepare(films, preparation=SMALL, out=tmp_path / "prepared", workers=1)
    np.testing.assert_array_equal(again.pixels, made.pixels)
    swapped = write_tar(places[0], [(f"images/{films.image[0]}", png())])
    assert swapped == places[0]
    with pytest.raises(ValueError, match="changed since they were prepared"):
        prepare(films, preparation=SMALL, out=tmp_path / "prepared", workers=1)


def test_a_compressed_archive_is_listed_once_a_run_and_prepared_in_one_pass(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    places = packed(unpacked, tmp_path / "root", PACKS["tar.gz"])
    films = films_of(tmp_path / "root", tmp_path)
    monkeypatch.setattr(film_archives, "_LISTED", {})
    opened = list[Path]()
    inflate = film_archives._Inflated

    def counting(path: Path) -> object:
        opened.append(path)
        return inflate(path)

    monkeypatch.setattr(film_archives, "_Inflated", counting)
    films = films_of(tmp_path / "root", tmp_path)  # the stage is done: its list is taken
    assert all(film_exists(place) for place in films.facts["path"])
    assert opened == []
    prepare(films, preparation=SMALL, out=tmp_path / "prepared", workers=1)
    assert sorted(opened) == places
    os.utime(places[0], ns=(1, 1))  # another file, for all that is known
    archive_of(places[0])
    assert sorted(opened) == [places[0], *places]


def test_other_readers_of_films_read_archives_too(unpacked: Path, tmp_path: Path):
    root = tmp_path / "root"
    packed(unpacked, root, PACKS["tar.gz"])
    films = films_below([root])
    assert len(films) == FILMS
    blocks = list(stream_films(films, preparation=SMALL, block=8))
    for block in blocks:
        for name, pixels in zip(block.names, block.pixels, strict=True):
            file = unpacked / "images" / Path(name).name
            alone = next(stream_films([file], preparation=SMALL)).pixels[0]
            np.testing.assert_array_equal(pixels, alone)
    assert sum(len(block.names) for block in blocks) == FILMS
    named = films_below([root / "images_002.tar.gz"])
    assert {member_of(film)[0].name for film in named} == {"images_002.tar.gz"}  # type: ignore[index]
    np.testing.assert_array_equal(
        read_grey(named[-1]), read_grey(unpacked / "images" / named[-1].name)
    )


def test_copies_at_native_size_are_those_of_the_folder(unpacked: Path, tmp_path: Path):
    packed(unpacked, tmp_path / "root", PACKS["tar.gz"])
    pixels = []
    for name, root in (("plain", unpacked), ("packed", tmp_path / "root")):
        made = prepared_of(root, tmp_path / name)
        twice = np.repeat(np.arange(6, dtype=np.int64), 2)
        plan = clones(made.manifest.label, twice, copies="gentle")
        folder = tmp_path / name / "copies"
        folder.mkdir()
        about = {"seed": 1, "folder": folder, "workers": 1, "progress": lambda *_: None}
        make_copies(made, plan=plan, **about)
        copies = plan.take(plan.copy > 0)
        pixels.append(np.asarray(load_copies(folder, copies=copies, prepared=made).pixels))
    np.testing.assert_array_equal(*pixels)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_bit_depth_is_that_of_the_folder(tmp_path: Path, kind: str):
    (tmp_path / "images").mkdir()
    films = []
    for number in range(6):
        deep = np.random.default_rng(number).integers(0, 2**12, (64, 64)).astype(np.uint16)
        films.append(tmp_path / "images" / f"{number}.png")
        cv2.imwrite(str(films[-1]), deep)
    archives = PACKS[kind](tmp_path, films)
    assert find_bits(films_in(archives)) == find_bits(films) == (12, 6, 6)


def test_several_threads_read_one_zip(unpacked: Path, tmp_path: Path):
    films = films_in(packed(unpacked, tmp_path / "root", PACKS["zip"])) * 4
    with ThreadPoolExecutor(4) as pool:
        loaded = list(pool.map(load_film, films))
    for film, one in zip(films, loaded, strict=True):
        assert one.content == (unpacked / "images" / film.name).read_bytes()


# --- unpacked and packed ---------------------------------------------------------------------


def test_a_film_that_lies_unpacked_is_not_looked_for_in_archives(
    unpacked: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    root = tmp_path / "root"
    packed(unpacked, root, PACKS["tar.gz"])
    (root / "images").mkdir()
    files = sorted((unpacked / "images").glob("*.png"))
    for film in files[:25]:
        (root / "images" / film.name).write_bytes(film.read_bytes())
    found = films_of(root, tmp_path / "some")
    assert sum(member_of(place) is None for place in found.facts["path"]) == 25
    assert "25 of 25 films lie unpacked" in (said := capsys.readouterr().err)
    assert "the files are taken" in said
    assert len(found_below(root)) == FILMS
    assert (
        f"25 of {FILMS} films lie in archives below {root} beside them" in capsys.readouterr().err
    )
    for film in files:
        (root / "images" / film.name).write_bytes(film.read_bytes())
    monkeypatch.setattr(film_archives, "_listed", lambda *_: pytest.fail("an archive was opened"))
    monkeypatch.setattr(film_archives, "_LISTED", {})
    assert len(films_of(root, tmp_path / "all")) == FILMS
    assert "its archives are not read (images_001.tar.gz, …)" in capsys.readouterr().err


def test_two_archives_with_one_film_are_an_error_that_names_both(unpacked: Path, tmp_path: Path):
    root = tmp_path / "root"
    packed(unpacked, root, PACKS["zip"])
    (root / "copy.zip").write_bytes((root / "images.zip").read_bytes())
    with pytest.raises(
        ValueError, match=r"fits both copy.zip::/images/\S+ and images.zip::/images/\S+: expect"
    ):
        films_of(root, tmp_path)


# --- names -----------------------------------------------------------------------------------


def test_places_are_text_that_no_file_has_by_accident():
    place = Path("films") / "images_001.tar.gz::/images/1.png"
    assert member_of(place) == (Path("films/images_001.tar.gz"), "images/1.png")
    assert member_of("films/a::b.png") is None
    assert member_of("films/images.zip") is None
    assert name_below(place, Path("films")) == "images_001/images/1.png"
    assert folder_of(place) == "images"
    assert folder_of("films/images_001.tgz::/1.png") == "images_001"
    assert folder_of("films/1.png") == "films"


def hostile_names() -> dict[str, str]:
    """Names of members, and by which name each is found."""
    return {
        "../../evil.png": "evil.png",
        "/etc/absolute.png": "etc/absolute.png",
        "C:\\films\\drive.png": "C:/films/drive.png",
        "a/./b//dots.png": "a/b/dots.png",
        "line\nbreak.png": "line?break.png",
        "caf\u00e9.png": "caf\u00e9.png",
    }


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_no_name_of_a_member_becomes_a_path(tmp_path: Path, kind: str):
    root = tmp_path / "root"
    root.mkdir()
    members = [(name, png(row)) for row, name in enumerate(hostile_names())]
    if kind == "zip":
        archive = write_zip(root / "films.zip", dict(members))
    else:
        archive = write_tar(root / f"films.{kind}", members, mode="w:gz" if "gz" in kind else "w:")
    before = set(tmp_path.rglob("*"))
    assert list(archive_of(archive).members) == list(hostile_names().values())
    names = ["evil.png", "absolute.png", "drive.png", "b/dots.png", "line?break.png", "caf\u00e9"]
    rows = "".join(f"{name},{row},0\n" for row, name in enumerate(names))
    (root / "labels.csv").write_text(f"image,patient,Mass\n{rows}", encoding="utf-8")
    films = films_of(root, tmp_path / "out", source="csv", labels="labels.csv")
    made = prepare(films, preparation=SMALL, out=tmp_path / "out" / "cache", workers=1)
    assert len(made.manifest) == len(names)
    assert load_film(films.facts["path"][0]).content == png(0)
    after = {path for path in tmp_path.rglob("*") if "out" not in path.relative_to(tmp_path).parts}
    assert after - before == {root / "labels.csv"}
    assert not (tmp_path.parent / "evil.png").exists()


def test_names_that_are_no_utf_8_are_read(tmp_path: Path):
    tar = write_tar(
        tmp_path / "a.tar", [(b"caf\xe9.png".decode("utf-8", "surrogateescape"), png())], mode="w:"
    )
    assert list(archive_of(tar).members) == ["caf\u00e9.png"]
    file = write_zip(tmp_path / "b.zip", {"cafXX.png": png()})
    file.write_bytes(file.read_bytes().replace(b"cafXX.png", "caf\u00e9.png".encode()))  # no flag
    assert list(archive_of(file).members) == ["caf\u00e9.png"]
    assert load_film(films_in([file])[0]).content == png()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_no_film_of_an_archive_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    members = [
        ("a/1.png", png(1)), ("a/1.png", png(2)), ("__MACOSX/a/._1.png", b""), (".b/2.png", b""),
        ("DICOMDIR", dicom()), ("3.tif", b""), ("inner.zip", b"PK"), ("scans/IM0001", dicom()),
        ("readme", b"text"), ("labels.csv", b"x"), ("scans/1.2.3.40", dicom()),
    ]  # fmt: skip
    with tarfile.open(write_tar(tmp_path / "a.tar", members, mode="w:"), "a") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "a/1.png"
        archive.addfile(link)
        sparse = tarfile.TarInfo("sparse.png")
        sparse.type = tarfile.GNUTYPE_SPARSE
        archive.addfile(sparse)
    packed = gzip.compress((tmp_path / "a.tar").read_bytes())
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for name, content in members:
            zipped.writestr(name, content)
        linked = zipfile.ZipInfo("link.png")
        linked.external_attr = 0o120777 << 16
        zipped.writestr(linked, "a/1.png")
    for name in ("a.tar", "a.tar.gz", "a.zip"):
        films = films_in([tmp_path / name])
        assert [member_of(film)[1] for film in films] == [  # type: ignore[index]
            "a/1.png", "scans/IM0001", "scans/1.2.3.40",
        ]  # fmt: skip
        assert load_film(films[0]).content == png(2), "the last one, as unpacking has it"
        assert read_grey(films[1]).shape == read_grey(films[2]).shape
        lines = capsys.readouterr().err.splitlines()
        assert [line for line in lines if line.startswith("Left out")] == [
            f"Left out of {tmp_path / name}: 1 earlier film of the same name, 2 hidden or system "
            "files, 1 DICOMDIR file, 1 picture in another format, 1 archive in the archive, 1 link"
            + ("" if name == "a.zip" else ", 1 sparse file")
        ]


def dicom() -> bytes:
    grey = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    return dicom_bytes(stored_for(grey))


# --- damage ----------------------------------------------------------------------------------


def test_films_of_a_damaged_zip_are_listed_with_the_reason(unpacked: Path, tmp_path: Path):
    place = packed(unpacked, tmp_path / "root", PACKS["stored zip"])[0]
    with zipfile.ZipFile(place) as archive:
        entry = archive.infolist()[7]
    content = bytearray(place.read_bytes())
    content[entry.header_offset + 200] ^= 1
    place.write_bytes(content)
    made = prepared_of(tmp_path / "root", tmp_path)
    image, reason = made.rejected.iloc[0]
    assert len(made.rejected) == 1
    assert entry.filename.endswith(image)
    assert reason.startswith("cannot be read from images.zip: Bad CRC-32")
    assert len(made.manifest) == FILMS - 1


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz"])
def test_films_before_a_cut_are_prepared_and_the_rest_is_named(
    unpacked: Path, whole: Prepared, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
):
    pack = pack_tar(f".{kind}", parts=1)
    place = packed(unpacked, tmp_path / "root", pack)[0]
    content = place.read_bytes()
    place.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=rf"of {FILMS} films are not below .*: expected all; add"):
        films_of(tmp_path / "root", tmp_path)
    assert f"{place} is damaged or cut short (" in capsys.readouterr().err
    films = films_of(tmp_path / "root", tmp_path, allow_missing=True)
    missing = pd.read_csv(tmp_path / "manifest" / "missing.csv")
    assert 10 < len(films) < 30
    assert len(films) + len(missing) == FILMS
    made = prepare(films, preparation=SMALL, out=tmp_path / "prepared", workers=1)
    assert len(made.rejected) <= 1  # the film at the cut
    for reason in made.rejected["reason"]:
        assert reason.startswith(f"cannot be read from {place.name}: ")
    row = pd.Index(whole.manifest.image).get_indexer(pd.Index(made.manifest.image))
    np.testing.assert_array_equal(made.pixels, whole.pixels[row])


def test_damage_that_comes_after_listing_rejects_what_is_behind_it(
    unpacked: Path, tmp_path: Path, whole: Prepared
):
    pack = pack_tar(".tar.gz", parts=1)
    place = packed(unpacked, tmp_path / "root", pack)[0]
    films = films_of(tmp_path / "root", tmp_path)
    found, content = place.stat(), place.read_bytes()
    place.write_bytes(
        content[: len(content) * 9 // 10] + bytes(len(content) - len(content) * 9 // 10)
    )
    os.utime(place, ns=(found.st_mtime_ns, found.st_mtime_ns))
    made = prepare(films, preparation=SMALL, out=tmp_path / "prepared", workers=1)
    assert 1 <= len(made.rejected) <= 10  # the pictures' own checksums, too, find the damage
    assert made.rejected["reason"].str.startswith("cannot be read from images_001.tar.gz").any()
    row = pd.Index(whole.manifest.image).get_indexer(pd.Index(made.manifest.image))
    np.testing.assert_array_equal(made.pixels, whole.pixels[row])


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path):
    place = write_tar(tmp_path / "a.tar", [(f"{n}.png", png(n)) for n in range(4)], mode="w:")
    content = bytearray(place.read_bytes())
    content[content.index(b"2.png")] ^= 1
    place.write_bytes(content)
    archive = archive_of(place)
    assert list(archive.members) == ["0.png", "1.png"]
    assert archive.damage == "bad checksum"
    place.write_bytes(place.read_bytes()[: archive.members["1.png"].offset + 4096])
    assert archive_of(place).damage


@pytest.mark.parametrize("name", ["page.zip", "page.tar.gz", "page.tar", "cut.zip"])
def test_an_archive_that_cannot_be_opened_is_named(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    content = b"<html>not found</html>" * 100
    if name == "cut.zip":
        content = write_zip(tmp_path / "whole.zip", {"1.png": png()}).read_bytes()[:-30]
        (tmp_path / "whole.zip").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be opened: .*: fetch it again"):
        films_below([tmp_path / name])
    (tmp_path / "1.png").write_bytes(png())
    assert films_below([tmp_path]) == [tmp_path / "1.png"]
    assert f"An archive is left out: {tmp_path / name} cannot be opened" in capsys.readouterr().err
    (tmp_path / "1.png").unlink()
    with pytest.raises(
        ValueError, match="holds no film; expected PNG, JPEG or DICOM films, or arch"
    ):
        films_below([tmp_path])


def test_a_pipe_by_an_archive_s_name_is_not_read(tmp_path: Path):
    place = tmp_path / "x.zip"
    os.mkfifo(place)
    end = os.open(place, os.O_RDWR)  # so that reading it would not wait
    os.write(end, write_zip(tmp_path / "whole.zip", {"1.png": png()}).read_bytes())
    with pytest.raises(ValueError, match=r"x\.zip cannot be opened: a pipe or a device, no file;"):
        archive_of(place)
    assert not film_exists(f"{place}::/1.png")
    os.close(end)


def test_a_member_that_is_gone_and_an_archive_that_is_gone_are_reasons(tmp_path: Path):
    place = write_zip(tmp_path / "a.zip", {"1.png": png()})
    film, gone = films_in([place])[0], Path(f"{place}::/2.png")
    assert film_exists(film)
    assert not film_exists(gone)
    assert load_film(gone).reason == "cannot be read: not in a.zip"
    place.unlink()
    assert not film_exists(film)
    assert stat_film(film) is None
    assert "a.zip cannot be opened: No such file" in load_film(film).reason


# --- bombs and locks -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, b"\x01", "encrypted in its archive: expected an archive without a password"),
        (10, b"\x09", "compressed by method 9 of zip, expected stored, deflated, bzip2 or LZMA"),
        (24, (LARGEST_FILE + 1).to_bytes(4, "little"), "absurd size: 553,648,129 bytes"),
        (24, (100_000_000).to_bytes(4, "little"), "absurd size: 100,000,000 bytes in its archive"),
    ],
)
def test_a_member_that_cannot_be_read_has_a_reason(
    tmp_path: Path, offset: int, value: bytes, reason: str
):
    """The fields are those of a zip's central directory (APPNOTE 4.3.12)."""
    place = write_zip(tmp_path / "a.zip", {"1.png": png(), "2.png": png(2)})
    content = bytearray(place.read_bytes())
    field = content.index(b"PK\x01\x02") + offset
    content[field : field + len(value)] = value
    place.write_bytes(content)
    films = films_in([place])
    assert load_film(films[0]).reason.startswith(reason)
    assert load_film(films[1]).content == png(2)
    assert find_bits(films).films == 2


def test_members_that_lie_over_each_other_are_refused(tmp_path: Path):
    place = tmp_path / "a.zip"
    place.write_bytes(quoting(3, inner=5000))
    *covering, last = (load_film(film) for film in films_in([place]))
    reason = "damaged: in its archive it reaches into the next file"
    assert [film.reason for film in covering] == [reason, reason]
    assert "Bad CRC-32" in last.reason


def test_what_inflates_without_end_is_stopped(tmp_path: Path):
    class Zeros(io.RawIOBase):
        left = 1 << 28

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            count = min(self.left, len(buffer))
            buffer[:count] = bytes(count)
            self.left -= count
            return count

    place = tmp_path / "bomb.tar.gz"
    with tarfile.open(place, "w:gz", compresslevel=1) as archive:
        entry = tarfile.TarInfo("1.png")
        entry.size = Zeros.left
        archive.addfile(entry, Zeros())
    with most_memory(16 << 20):
        found = archive_of(place)
    assert found.damage == "it inflates to more than 100 times its size"
    with most_memory(128 << 20):
        _, film = next(in_reading_order([f"{place}::/1.png"]))
    assert "it inflates to more than 100 times" in load_film(film).reason
    crafted = tmp_path / "negative.tar"
    raw = bytearray(
        write_tar(crafted, [("1.png", png()), ("2.png", png())], mode="w:").read_bytes()
    )
    at = raw.index(b"2.png")
    raw[at + 124 : at + 136] = b"\xff" * 12  # a size of -1, in base 256
    raw[at + 148 : at + 156] = b" " * 8
    raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    crafted.write_bytes(raw)
    with within(SECONDS):
        assert archive_of(crafted).damage == "a member of negative size"
    film = write_tar(tmp_path / "whole.tar", [("1.png", bytes(512))], mode="w:").read_bytes()
    again = tmp_path / "again.tar"  # whose second member leads to itself (CVE-2025-8194)
    again.write_bytes(film[:1024] + extended_size(-1536))
    with within(SECONDS):
        assert archive_of(again).damage == "a member of negative size"


def test_one_loaded_film_at_a_time(tmp_path: Path):
    noise = np.random.default_rng(0).bytes(1 << 20)
    place = write_tar(tmp_path / "a.tar.gz", [(f"{n}.png", noise) for n in range(24)])
    films: Iterator[object] = in_reading_order([f"{place}::/{n}.png" for n in reversed(range(24))])
    archive_of(place)
    with most_memory(8 << 20):
        assert sum(1 for _ in films) == 24


def test_a_film_that_is_wanted_twice_is_read_once(tmp_path: Path):
    place = write_tar(tmp_path / "a.tar.gz", [(f"{n}.png", png(n)) for n in range(3)])
    wanted = [f"{place}::/{n}.png" for n in (2, 0, 2, 1)]
    found = list(in_reading_order(wanted))
    assert [number for number, _ in found] == [1, 3, 0, 2]
    contents = {number: load_film(film).content for number, film in found}
    assert contents == {0: png(2), 1: png(0), 2: png(2), 3: png(1)}
    assert load_film(wanted[0]).content == png(2)
    assert manifest_of([Path(wanted[0])]).image.tolist() == ["2.png"]

"""Object stores: films, tables and shared shards at a URL are those of a folder, byte for byte."""

import errno
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import lucency as lu
from lucency.cli import app as cli
from lucency.cli import options
from lucency.cli.app import app
from lucency.config.protocol import read_protocol
from lucency.config.sections import Source
from lucency.core import engines, stores
from lucency.core.engines import choose_engine
from lucency.core.film_shards import SHARDS
from lucency.core.manifest import FINDINGS, Preparation, Prepared
from lucency.data import film_cache, shared_shards, stored_tables
from lucency.data.film_cache import prepare
from lucency.data.film_files import StoredFilm, load_film
from lucency.data.film_stream import stream_films
from lucency.data.images import films_below
from lucency.data.several_sources import read_sources
from lucency.data.shared_shards import choose_cache
from lucency.data.sources import read_films
from lucency.phantom.dataset import write_phantom
from lucency.pipeline.run import open_run
from object_store import BUCKET, client, s3_server, stored, troubled, upload
from toys import manifest_of
from workplace import write_protocol

SMALL = Preparation(size=64, clahe_tiles=4)
FILMS, SIDE = 40, 64
AT = "memory://hospital/films"


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    """Each test looks at stores of its own."""
    forget()
    yield
    forget()
    choose_cache("")


def look_anew() -> None:
    """Look at stores as another command does."""
    stores._ROOTS.clear()
    stores._listed.cache_clear()
    stored_tables._copied.cache_clear()


def forget() -> None:
    look_anew()
    stores._system.cache_clear()
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantom(folder, films=FILMS, size=SIDE)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        yield address


def remember(folder: Path, at: str = AT) -> None:
    """Put the files of a folder into memory."""
    for file in folder.rglob("*"):
        if file.is_file():
            stores.write_object(f"{at}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def prepared_of(root: str, out: Path, **choices: Any) -> Prepared:
    place = Source(source="nih", root=root, **choices)
    films = read_films(place, findings=FINDINGS, out=out / "manifest")
    return prepare(films, preparation=SMALL, out=out / "prepared", workers=1)


def shards_of(out: Path) -> dict[str, bytes]:
    """Return the files of prepared films that depend on nothing but the films."""
    return {file.name: file.read_bytes() for file in (out / "prepared" / SHARDS).iterdir()}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere://bucket/films", "nowhere://bucket/films: no store is called nowhere://"),
        ("s3://", "s3://: expected a bucket"),
        ("zip::s3://bucket/films.zip", "expected a folder, or the URL of one"),
        ("s3://bucket/films::zip://a", "expected a folder, or the URL of one"),
    ],
)
def test_a_place_that_is_none_is_refused(place: str, message: str):
    with pytest.raises(ValueError, match=message):
        stores.named_place(place)


def test_credentials_in_a_url_are_refused_and_never_shown(tmp_path: Path):
    file = tmp_path / "p.toml"
    write_protocol(file, {"films": 20})
    with pytest.raises(ValueError, match="a URL with credentials") as caught:
        read_protocol(file, changes=["data.root=s3://KEY:SECRET@bucket/films"])
    assert "SECRET" not in str(caught.value)
    assert "KEY" not in str(caught.value)
    with pytest.raises(ValueError, match="a URL with credentials") as caught:
        choose_cache("s3://KEY:SECRET@bucket/cache")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "s3://KEY:SEC/RET@bucket/films",
        "s3://KEY:/SECRET@bucket/films",
        "s3://KEY:SEC@RET/@bucket/films",
        "simplecache::s3://KEY:SEC/RET@bucket/films",
        "s3://KEY:SEC/RET@bucket/films::zip://a",
    ],
)
def test_secrets_with_slashes_are_refused_and_never_shown(place: str):
    with pytest.raises(ValueError, match=r"credentials|the URL of one") as caught:
        stores.named_place(place)
    for shown in (str(caught.value), stores.without_credentials(f"found {place} there")):
        assert "…@bucket/films" in shown
        assert {part for part in ("KEY", "SEC", "RET") if part in shown} == set()


def test_an_at_sign_below_a_bucket_is_no_credential():
    assert stores.named_place("s3://bucket/a@b/films") == "s3://bucket/a@b/films"
    for text in ("s3://bucket/a@b", "D:/me@home/films", "/films/a@b"):
        assert stores.without_credentials(text) == text
    assert stores.without_credentials("ab:/c:" * 20_000) == "ab:/c:" * 20_000
    assert stores.without_credentials("at " + "ab:/c:" * 20_000 + "@") == "at …"


def test_a_url_goes_through_a_protocol_and_a_path_as_it_is(tmp_path: Path):
    file = tmp_path / "p.toml"
    write_protocol(file, {"source": "csv", "root": "s3://bucket/films/", "labels": "t.csv"})
    assert read_protocol(file).data.root == "s3://bucket/films"
    assert stores.url_of(Path("s3://bucket/films") / "a" / "1.png") == "s3://bucket/films/a/1.png"
    write_protocol(file, {"source": "nih", "root": tmp_path.as_uri()})
    assert read_protocol(file).data.root == str(tmp_path)
    file.write_text(file.read_text().replace(str(tmp_path), tmp_path.as_uri()))
    assert read_protocol(file).data.root == str(tmp_path)


def test_a_package_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch):
    def absent(scheme: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    for url, package in (("s3://bucket/a", r"'lucency\[s3\]'"), ("gs://bucket/a", "gcsfs")):
        with pytest.raises(ValueError, match=f"{url}: .* is not installed: pip install {package}"):
            choose_cache(url)


def test_films_of_a_store_are_those_of_a_folder(phantoms: Path, tmp_path: Path):
    remember(phantoms)
    near = prepared_of(str(phantoms), tmp_path / "near")
    far = prepared_of(AT, tmp_path / "far")
    assert shards_of(tmp_path / "far") == shards_of(tmp_path / "near")
    for name in ("manifest.csv", "boxes.csv", "receipt.json"):
        near_file, far_file = (tmp_path / at / "manifest" / name for at in ("near", "far"))
        assert far_file.read_bytes() == near_file.read_bytes(), name
    assert far.manifest.facts["path"].iloc[0].startswith(f"{AT}/images/")
    np.testing.assert_array_equal(far.manifest.label, near.manifest.label)
    again = prepared_of(AT, tmp_path / "far")
    assert again.pixels.shape == (FILMS, SIDE, SIDE)


def test_what_differs_in_a_store_is_noticed(phantoms: Path, tmp_path: Path):
    remember(phantoms)
    prepared_of(AT, tmp_path)
    table = f"{AT}/Data_Entry_2017_v2020.csv"
    known = stores.read_object(table)
    stores.write_object(table, known.replace(b"Effusion", b"Edema"))
    look_anew()
    with pytest.raises(ValueError, match=r"made from other inputs \(tables.Data_Entry_2017_v2020"):
        prepared_of(AT, tmp_path)
    stores.write_object(table, known)
    name = next(name for name in stores.list_objects(AT) if name.endswith(".png"))
    other = stores.read_object(f"{AT}/{name}")
    stores.write_object(f"{AT}/{name}", other[:-13] + b"\0" + other[-12:])
    look_anew()
    with pytest.raises(ValueError, match=f"1 of {FILMS} films has changed .* {AT}/{name}"):
        prepared_of(AT, tmp_path)


def test_what_lies_beside_films_is_left_out_aloud(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    remember(phantoms)
    for name in (".hidden/1.png", "images/2.tif", "old.zip", "a//b.png", "../c.png"):
        fsspec.filesystem("memory").store[f"/hospital/films/{name}"] = stored_file(b"x")
    made = prepared_of(AT, tmp_path)
    said = capsys.readouterr().err
    assert len(made.manifest) == FILMS
    assert f"Left out below {stores.url_of(Path(AT))[:9]}" in said
    assert "1 archive is not read below memory://hospital/films" in said
    assert "2 objects whose names are no paths" in said


def stored_file(content: bytes) -> Any:
    from fsspec.implementations.memory import MemoryFile

    return MemoryFile(fsspec.filesystem("memory"), "/x", content)


def test_one_object_is_one_film_for_two_sources(phantoms: Path, tmp_path: Path):
    remember(phantoms)
    labels = pd.read_csv(phantoms / "Data_Entry_2017_v2020.csv", index_col=False)
    for name in ("one", "two"):
        table = pd.DataFrame(
            {"image": labels["Image Index"], "patient": name + labels["Patient ID"].astype(str)}
        )
        table = table.assign(**dict.fromkeys(FINDINGS, 0))
        stores.write_object(f"{AT}/{name}.csv", table.to_csv(index=False).encode())
    about = {"source": "csv", "root": AT}
    place = Source(**about, labels="one.csv", also=(Source(**about, labels="two.csv"),))
    with pytest.raises(
        ValueError, match=f"{FILMS} films are read by data too .memory://hospital/f"
    ):
        read_sources(place, findings=FINDINGS, out=tmp_path / "manifest")


def test_dicom_archives_are_read_from_folders():
    with pytest.raises(ValueError, match="a key of pseudonyms is read from a local folder"):
        Source(source="dicom", root="s3://bucket/archive", labels="t.csv")


@pytest.mark.parametrize("cache", ["memory://share/cache", "folder"])
def test_shards_are_shared_and_nothing_is_prepared_twice(
    cache: str, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    prepared_of(str(phantoms), tmp_path / "alone")
    choose_cache(cache)
    prepared_of(str(phantoms), tmp_path / "first")
    monkeypatch.setattr(film_cache, "prepare_file", lambda *_, **__: pytest.fail("prepared"))
    prepared_of(str(phantoms), tmp_path / "second")
    assert shards_of(tmp_path / "first") == shards_of(tmp_path / "second")
    assert shards_of(tmp_path / "alone") == shards_of(tmp_path / "second")


def test_films_of_one_name_size_and_time_are_told_apart(tmp_path: Path):
    preparation, made = Preparation(size=32, order="no-clahe"), []
    choose_cache(str(tmp_path / "cache"))
    for place, grey in (("one", 10), ("two", 200)):
        file = tmp_path / place / "0.png"
        file.parent.mkdir()
        film = np.full((64, 64), grey, np.uint8)
        film[:20] = 90
        file.write_bytes(cv2.imencode(".png", film, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes())
        os.utime(file, (1e9, 1e9))
        films = manifest_of([file])
        out = tmp_path / f"{place}-prepared"
        made.append((file.stat(), prepare(films, preparation=preparation, out=out, workers=1)))
    (one, first), (two, second) = made
    assert (one.st_size, one.st_mtime_ns) == (two.st_size, two.st_mtime_ns)
    assert not np.array_equal(first.pixels[0], second.pixels[0])


def test_a_rejection_is_not_shared(phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    choose_cache(str(tmp_path / "cache"))
    decode, first = film_cache.prepare_file, sorted(phantoms.glob("images/*.png"))[0]

    def without_decoder(film: Any, **about: Any) -> Any:
        return "no decoder" if Path(film.place).name == first.name else decode(film, **about)

    monkeypatch.setattr(film_cache, "prepare_file", without_decoder)
    assert len(prepared_of(str(phantoms), tmp_path / "first").manifest) == FILMS - 1
    [place] = (tmp_path / "cache" / SHARDS).iterdir()
    assert sorted(one.name for one in place.iterdir()) == ["00001.json", "00001.npy"]
    prepare_shard = film_cache._prepare_shard

    def shared_too(folder: Path, preparation: Preparation, shard: Any) -> film_cache.Made:
        made = prepare_shard(folder, preparation, shard)
        shared_shards.share_shard(str(place), folder, shard[0])  # what no one else may take
        return made

    with monkeypatch.context() as sharing:
        sharing.setattr(film_cache, "_prepare_shard", shared_too)
        prepared_of(str(phantoms), tmp_path / "other")
    assert (place / "00000.json").is_file()
    monkeypatch.setattr(film_cache, "prepare_file", decode)
    assert len(prepared_of(str(phantoms), tmp_path / "second").manifest) == FILMS


@pytest.mark.parametrize("blocked", ["file/cache", "cache"])
def test_a_cache_that_cannot_be_written_is_named(blocked: str, tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "cache" / shared_shards.NOTE).mkdir(parents=True)
    with pytest.raises(ValueError, match=f"--cache {tmp_path}/.*: cannot be written .*: expected"):
        shared_shards.open_shared(f"{tmp_path / blocked}/{SHARDS}/0123")
    assert [one.name for one in (tmp_path / "cache").iterdir()] == [shared_shards.NOTE]


def test_a_shard_that_cannot_be_read_is_named(tmp_path: Path):
    (tmp_path / "00000.json").mkdir()
    with pytest.raises(ValueError, match=f"{tmp_path}/00000.json: cannot be read"):
        shared_shards.fetch_shard(str(tmp_path), 0)
    assert shared_shards.fetch_shard(str(tmp_path), 1).state == "absent"


def test_what_killed_runs_left_in_a_cache_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    place, sign = tmp_path / SHARDS / "0123", "0123456789abcdef" * 2
    place.mkdir(parents=True)
    old = [place / f"00000.npy.{sign}", place / f"00000.json.{sign}.lucency-new", tmp_path / "x"]
    old += [tmp_path / f"{shared_shards.NOTE}.{sign}", place / "00000.npy", place / "00000.json"]
    new = place / f"00001.npy.{sign}"
    for file in (*old, new):
        file.write_bytes(b"")
    for file in old:
        os.utime(file, (1.0, 1.0))
    shared_shards.open_shared(str(place))
    left = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    assert left == {"x", "00000.npy", "00000.json", new.name, shared_shards.NOTE}
    assert "3 half-written files of killed runs removed" in capsys.readouterr().err


def test_films_with_other_content_are_not_taken_from_the_cache(phantoms: Path, tmp_path: Path):
    remember(phantoms)
    choose_cache("memory://share/cache")
    prepared_of(AT, tmp_path / "first")
    name = next(name for name in stores.list_objects(AT) if name.endswith(".png"))
    others = [one for one in stores.list_objects(AT) if one.endswith(".png") and one != name]
    stores.write_object(f"{AT}/{name}", stores.read_object(f"{AT}/{others[0]}"))
    look_anew()
    far = prepared_of(AT, tmp_path / "second")
    choose_cache("")
    alone = prepared_of(AT, tmp_path / "alone")
    np.testing.assert_array_equal(far.pixels[:], alone.pixels[:])
    assert shards_of(tmp_path / "first") != shards_of(tmp_path / "second")


def test_of_flipped_bits_in_the_cache_none_is_taken(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    choose_cache("memory://share/cache")
    prepared_of(str(phantoms), tmp_path / "first")
    sound, generator = shards_of(tmp_path / "first"), np.random.default_rng(0)
    objects = [f"memory://share/cache/{one}" for one in stores.list_objects("memory://share/cache")]
    shards = [one for one in objects if not one.endswith(".txt")]
    assert {one.rpartition(".")[2] for one in shards} == {"npy", "json"}
    place, held = shards[0].rpartition("/")[0], {one: stores.read_object(one) for one in shards}
    for flip in range(1_000):
        one = shards[flip % len(shards)]
        content = bytearray(held[one])
        content[generator.integers(len(content))] ^= 1 << generator.integers(8)
        stores.write_object(one, bytes(content))
        number = int(Path(one).stem)
        assert shared_shards.fetch_shard(place, number).state == "damaged", flip
        if flip >= len(shards):  # one of each kind stays damaged
            stores.write_object(one, held[one])
    for one in shards[:2]:
        stores.write_object(one, held[one][:-1] + bytes([held[one][-1] ^ 1]))
    capsys.readouterr()
    prepared_of(str(phantoms), tmp_path / "second")
    assert shards_of(tmp_path / "second") == sound
    assert "damaged there and made anew" in capsys.readouterr().err
    assert {one: stores.read_object(one) for one in shards} == held


class Failing:
    """A store that fails so many times before it answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)

    def cat_file(self, path: str) -> bytes:
        if self.errors:
            raise self.errors.pop()
        return b"here"


@pytest.mark.parametrize(
    "error", [OSError(errno.EBUSY, "SlowDown"), ConnectionResetError("gone"), TimeoutError("late")]
)
def test_failures_are_tried_again_for_a_bounded_time(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    slept = list[float]()
    monkeypatch.setattr(stores.time, "sleep", slept.append)
    monkeypatch.setattr(stores, "_system", lambda *_: Failing(*[error] * 3))
    assert stores.read_object("memory://a/b") == b"here"
    assert len(slept) == 3
    assert not capsys.readouterr().err  # too short to be spoken of
    failing = Failing(*[error] * 100)
    monkeypatch.setattr(stores, "_system", lambda *_: failing)
    slept.clear()
    with pytest.raises(
        ValueError, match=r"memory://a/b: the store fails, 8 tries in .*same command"
    ):
        stores.read_object("memory://a/b")
    assert slept == sorted(slept)
    assert sum(slept) < 60
    assert capsys.readouterr().err.count("memory://a/b: the store fails (") == 1


def test_what_no_other_try_changes_is_not_tried_again(monkeypatch: pytest.MonkeyPatch):
    failing = Failing(*[PermissionError("Access Denied")] * 2)
    monkeypatch.setattr(stores, "_system", lambda *_: failing)
    with pytest.raises(ValueError, match=r"memory://a/b: no permission \(Access Denied\)"):
        stores.read_object("memory://a/b")
    assert len(failing.errors) == 1


def test_a_store_that_fails_rejects_no_film(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stores, "PAUSES", ())
    monkeypatch.setattr(stores, "_system", lambda *_: Failing(*[OSError(errno.EIO, "broken")] * 9))
    with pytest.raises(ValueError, match="the store fails"):
        load_film(StoredFilm(f"{AT}/images/1.png", 9, 0))


def test_a_listing_that_failed_is_tried_anew(monkeypatch: pytest.MonkeyPatch):
    stores.write_object(f"{AT}/1.png", b"here")
    memory, failing = fsspec.filesystem("memory"), Failing()

    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(stores, "PAUSES", ())
    monkeypatch.setattr(failing, "find", broken, raising=False)
    monkeypatch.setattr(failing, "info", broken, raising=False)
    monkeypatch.setattr(stores, "_system", lambda *_: failing)
    for look in (stores.list_objects, lambda at: stores.find_object(f"{at}/1.png")):
        with pytest.raises(ValueError, match="the store fails"):
            look(AT)
    monkeypatch.setattr(stores, "_system", lambda *_: memory)
    assert list(stores.list_objects(AT)) == ["1.png"]
    found = stores.find_object(f"{AT}/1.png")
    assert found is not None
    assert found.size == 4


def test_films_are_sent_to_workers_by_name():
    film = StoredFilm(f"{AT}/1.png", 5, 7)
    assert engines._is_named((3, [(0, film)]))
    assert pickle.loads(pickle.dumps(film)) == film


def test_what_is_written_by_name_is_local(tmp_path: Path):
    file = tmp_path / "p.toml"
    write_protocol(file, {"films": 20})
    with pytest.raises(
        ValueError, match=r"s3://bucket/run: a run lies in a folder of this machine"
    ):
        open_run(read_protocol(file), out="s3://bucket/run")
    with pytest.raises(ValueError, match=r"s3://bucket/tables: expected a folder of this machine"):
        options.check_folder(Path("s3://bucket/tables"))


def test_an_option_that_names_a_url_keeps_it():
    about = {"source": "csv", "root": Path("s3://bucket/films"), "labels": "t.csv"}
    assert options.chosen_source(about, changes=None).root == "s3://bucket/films"


def test_the_library_prepares_films_of_stores_and_archives(phantoms: Path, tmp_path: Path):
    remember(phantoms)
    packed = shutil.make_archive(str(tmp_path / "films"), "zip", phantoms / "images")
    found = list[dict[str, bytes]]()
    for place in (phantoms / "images", f"{AT}/images", packed):
        made = lu.prepare(place, size=SIDE)
        names = [str(image).rpartition("/")[2] for image in made.manifest.image]
        found.append(dict(zip(names, map(np.ndarray.tobytes, made.pixels[:]), strict=True)))
    assert found[1:] == [found[0]] * 2
    with pytest.raises(ValueError, match=r"memory://hospital/none: nothing lies there"):
        lu.prepare("memory://hospital/none")


def test_predict_and_describe_take_urls(phantoms: Path):
    remember(phantoms)
    first = sorted(phantoms.glob("images/*.png"))[:2]
    blocks = list(stream_films(films_below([Path(f"{AT}/images")]), preparation=SMALL))
    near = list(stream_films(sorted(phantoms.glob("images/*.png")), preparation=SMALL))
    np.testing.assert_array_equal(blocks[0].pixels, near[0].pixels)
    assert blocks[0].names[0] == f"{AT}/images/{first[0].name}"
    assert films_below([Path(f"{AT}/images/{first[1].name}")]) == [
        Path(AT) / "images" / first[1].name
    ]
    with pytest.raises(ValueError, match="memory://hospital/none: nothing lies there"):
        films_below([Path("memory://hospital/none")])
    table = f"{AT}/Data_Entry_2017_v2020.csv"
    far = CliRunner().invoke(app, ["data", "describe", table], catch_exceptions=False)
    own = CliRunner().invoke(app, ["data", "describe", str(phantoms / Path(table).name)])
    assert far.stdout == own.stdout
    with pytest.raises(
        ValueError, match=r"memory://hospital/films/no.csv: is not there; expected a"
    ):
        CliRunner().invoke(app, ["data", "describe", f"{AT}/no.csv"], catch_exceptions=False)


# --- S3, by a server on loopback


def run_of(root: str, out: Path, *words: str, **parts: Any) -> str:
    """Do the command `run` on films at a root, and return what it has printed."""
    file = out.with_suffix(".toml")
    write_protocol(file, {"source": "nih", "root": root}, **parts)
    line = ["run", str(file), "--out", str(out), "--workers", "1", *words]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def files_of(folder: Path) -> dict[str, bytes]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_films_and_cache_in_s3_are_those_of_a_folder(server: str, phantoms: Path, tmp_path: Path):
    upload(phantoms, "one/films")
    cache, until = f"s3://{BUCKET}/one/cache", ("--until", "split")
    run_of(str(phantoms), tmp_path / "near", *until)
    said = run_of(f"s3://{BUCKET}/one/films", tmp_path / "far", *until, "--cache", cache)
    assert "0 fetched, 2 prepared, 0 damaged" in said
    said = run_of(str(phantoms), tmp_path / "again", *until, "--cache", cache)
    assert "2 fetched, 0 prepared, 0 damaged" in said
    near = shards_of(tmp_path / "near")
    assert shards_of(tmp_path / "far") == near == shards_of(tmp_path / "again")
    for name in ("manifest/manifest.csv", "prepared/rejected.csv", "split/part.csv"):
        assert (tmp_path / "far" / name).read_bytes() == (tmp_path / "near" / name).read_bytes()
    kept = {name.rpartition("/")[2]: body for name, body in stored("one/cache").items()}
    shards = {name: body for name, body in kept.items() if name.endswith(".npy")}
    assert len(shards) == 2
    assert shards == {name: near[name] for name in shards}


def test_a_finished_run_is_read_without_its_store(
    server: str, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    upload(phantoms, "six")
    root, until = f"s3://{BUCKET}/six", ("--until", "split")
    lists = {"split": {"method": "official"}}
    run_of(root, tmp_path / "run", *until, **lists)
    before = files_of(tmp_path / "run")
    forget()
    monkeypatch.setattr(stores, "PAUSES", ())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    said = run_of(root, tmp_path / "run", *until, **lists)
    assert f"data.root: {root}: the store fails" in said
    assert "films and labels stay as they were read" in said
    assert files_of(tmp_path / "run") == before


def test_a_store_that_throttles_and_drops_costs_time_and_no_film(
    server: str, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    upload(phantoms, "two/films")
    place, until = f"s3://{BUCKET}/two", ("--until", "prepare")
    run_of(str(phantoms), tmp_path / "near", *until)
    monkeypatch.setattr(stores, "PAUSES", (0.0, 0.0, 0.01, 0.02, 0.04, 0.08))
    with troubled(server, every=4) as (url, done):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        stores._system.cache_clear()
        run_of(f"{place}/films", tmp_path / "far", *until, "--cache", f"{place}/cache")
        stores._system.cache_clear()
    assert min(done.values()) >= 3, done
    assert shards_of(tmp_path / "far") == shards_of(tmp_path / "near")
    assert pd.read_csv(tmp_path / "far" / "prepared" / "rejected.csv").empty


def test_a_flipped_bit_in_s3_is_found_and_mended(server: str, phantoms: Path, tmp_path: Path):
    place, until = f"s3://{BUCKET}/three", ("--until", "prepare")
    run_of(str(phantoms), tmp_path / "first", *until, "--cache", place)
    held = stored("three")
    name = next(name for name in held if name.endswith("1.npy"))
    damaged = held[name][:500] + bytes([held[name][500] ^ 4]) + held[name][501:]
    s3 = client()
    s3.put_object(Bucket=BUCKET, Key=f"three/{name}", Body=damaged)
    s3.close()
    said = run_of(str(phantoms), tmp_path / "second", *until, "--cache", place)
    assert "1 fetched, 0 prepared, 1 damaged there and made anew" in said
    assert shards_of(tmp_path / "second") == shards_of(tmp_path / "first")
    assert stored("three")[name] == held[name]


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (f"s3://{BUCKET}/nothing", f"data.root: s3://{BUCKET}/nothing: nothing lies there"),
        ("s3://no-such-bucket/films", "data.root: s3://no-such-bucket/films: there is no such"),
    ],
)
def test_what_is_not_in_s3_is_named(server: str, tmp_path: Path, root: str, message: str):
    with pytest.raises(ValueError, match=message):
        run_of(root, tmp_path / "run", "--until", "prepare")
    assert not (tmp_path / "run").exists()


def test_a_cache_without_a_bucket_is_named(server: str, phantoms: Path, tmp_path: Path):
    cache = "s3://no-such-bucket/cache"
    with pytest.raises(ValueError, match=f"{cache}/.*: there is no such bucket: make it first"):
        run_of(str(phantoms), tmp_path / "run", "--until", "prepare", "--cache", cache)


def test_a_server_that_is_not_there_is_named(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stores, "PAUSES", (0.0,))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(
        ValueError, match=r"s3://films/x: the store fails, 2 tries in .*not connect"
    ):
        run_of(f"s3://{BUCKET}/x", tmp_path / "run", "--until", "prepare")


@pytest.fixture
def one_pause(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stores are tried twice, at once; a silent web server is left soon."""
    monkeypatch.setattr(stores, "PAUSES", (0.0,))
    monkeypatch.setattr(stores, "SILENT", 0.1)
    stores._system.cache_clear()
    yield
    stores._system.cache_clear()


@pytest.mark.parametrize("act", [stores.find_object, stores.read_object, stores.list_objects])
def test_a_web_server_that_never_answers_is_left(one_pause: None, act: Callable[[str], object]):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/films/1.png"
        with pytest.raises(ValueError, match=f"{url}: the store fails, 2 tries in [0-2] s"):
            act(url)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, ""),
        (410, ""),
        (403, "/1.png: 403"),
        (429, "the store fails, 2 tries .*429"),
        (503, "the store fails, 2 tries .*503"),
    ],
)
def test_what_a_web_server_lacks_is_absent_and_what_it_fails_for_is_not(
    one_pause: None, status: int, message: str
):
    answer = partial(BaseHTTPRequestHandler.send_error, code=status)
    kind = type("Answering", (BaseHTTPRequestHandler,), {
        "do_GET": lambda self: answer(self), "do_HEAD": lambda self: answer(self),
        "log_message": lambda *_: None,
    })  # fmt: skip
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/films/1.png"
            if message:
                with pytest.raises(ValueError, match=message):
                    stores.find_object(url)
            else:
                assert stores.find_object(url) is None
        finally:
            server.shutdown()


def test_an_object_that_is_not_in_s3_is_absent(server: str, one_pause: None):
    assert stores.find_object(f"s3://{BUCKET}/nothing.png") is None
    with pytest.raises(FileNotFoundError):
        stores.read_object(f"s3://{BUCKET}/nothing.png")


def test_without_credentials_the_line_says_so(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"s3://films/x: no credentials \(Unable to locate cred"):
        run_of(f"s3://{BUCKET}/x", tmp_path / "run", "--until", "prepare")


@pytest.mark.slow
def test_a_whole_run_with_workers_has_the_results_of_a_folder(
    server: str, phantoms: Path, tmp_path: Path
):
    upload(phantoms, "four/films")
    one = {"network": [{"name": "test_resnet"}], "findings": ["Effusion"]}
    place, two = f"s3://{BUCKET}/four", ("--workers", "2")
    run_of(str(phantoms), tmp_path / "near", *two, **one)
    run_of(f"{place}/films", tmp_path / "far", *two, "--cache", f"{place}/cache", **one)
    assert shards_of(tmp_path / "far") == shards_of(tmp_path / "near")
    near, far = (files_of(tmp_path / name / "evaluation") for name in ("near", "far"))
    assert {name: far[name] == body for name, body in near.items()} == dict.fromkeys(far, True)
    assert len(near) > 5


@pytest.mark.slow
def test_jobs_of_another_engine_read_the_store(server: str, phantoms: Path, tmp_path: Path):
    upload(phantoms, "seven/films")
    place, until = f"s3://{BUCKET}/seven", ("--until", "prepare")
    run_of(str(phantoms), tmp_path / "near", *until)
    engine = f"slurm://?cluster=local&array=2&logs={tmp_path}/logs"
    far = (*until, "--engine", engine, "--cache", f"{place}/cache")
    run_of(f"{place}/films", tmp_path / "far", *far)
    choose_engine("local")
    assert shards_of(tmp_path / "far") == shards_of(tmp_path / "near")


@pytest.mark.slow
def test_two_commands_at_once_share_one_cache(server: str, phantoms: Path, tmp_path: Path):
    upload(phantoms, "five/films")
    place, outs = f"s3://{BUCKET}/five", [tmp_path / "a", tmp_path / "b"]
    write_protocol(tmp_path / "p.toml", {"source": "nih", "root": f"{place}/films"})
    about = ["--until", "prepare", "--workers", "1", "--cache", f"{place}/cache"]
    line = [sys.executable, "-m", "lucency", "run", str(tmp_path / "p.toml"), *about]
    both = [subprocess.Popen([*line, "--out", str(out)], stderr=subprocess.PIPE) for out in outs]
    for one in both:
        _, said = one.communicate(timeout=120)
        assert one.returncode == 0, said
    run_of(str(phantoms), tmp_path / "near", "--until", "prepare")
    assert shards_of(outs[0]) == shards_of(outs[1]) == shards_of(tmp_path / "near")
    assert len([name for name in stored("five/cache") if name.endswith(".json")]) == 2


@pytest.mark.parametrize("place", ["file://here/films", "local://here/films"])
def test_a_file_of_another_machine_is_refused(place: str):
    with pytest.raises(ValueError, match="names a machine; expected file:///FOLDER"):
        stores.named_place(place)


def test_a_store_that_a_url_does_not_describe_is_one_line():
    with pytest.raises(ValueError, match=r"^ftp://host/films: ftp:// needs host beside a URL"):
        stores.require_package("ftp://host/films")


def test_no_secret_of_a_url_is_printed_wherever_it_was_named(monkeypatch, capsys):
    words = ["lucency", "evaluate", "s3://KEYID:SECRET/PW@bucket/x.csv", "--labels", "y.csv"]
    monkeypatch.setattr("sys.argv", words)
    assert cli.call() == 2
    line = capsys.readouterr().err
    assert "bucket/x" in line
    assert "SECRET" not in line

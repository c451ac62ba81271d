"""A sample of `try_corpora`: what lies on disk with pydicom and Python, and how corpora are had."""

import binascii
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from torture.film_tries import Tried, small_model, try_films, write_films
from torture.hostile_pictures import whole
from torture.public_corpora import (
    CORPORA,
    PACKED,
    Corpus,
    corpus_of,
    public_corpora,
    run_in,
    unpacked,
    uudecoded,
)
from torture.try_corpora import archive_suffix, chatter, tallied, tried_corpus

EVERY = 12  # of the files of a corpus


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


def test_files_on_disk_are_read_or_left_out_by_a_reason(model: Path, tmp_path: Path):
    on_disk = [corpus_of(name, CORPORA[name](tmp_path)) for name in ("pydicom", "CPython")]
    films = [file.read_bytes() for corpus in on_disk for file in corpus.films[::EVERY]]
    write_films(tmp_path / "films", films, suffix=".png")
    with chatter() as written:
        tried = try_films(model, tmp_path / "films", expected=len(films) + 1, engine="torch")
    assert tried.wrong == written == []
    assert {"read", "not-plain", "unknown-format"} <= {*tried.outcomes}
    for number, file in enumerate(on_disk[1].archives):
        shutil.copy(file, tmp_path / "films" / f"{number}{archive_suffix(file)}")
    with chatter() as written:
        tried = try_films(model, tmp_path / "films", engine="torch")
    assert tried.wrong == written == []


def test_a_source_is_unpacked_once_and_sorted(tmp_path: Path):
    source = tmp_path / "source.tar"
    contents = {"a.png": whole()["PNG"], "b.c": b"text", "empty": b"", "z.zip": b"PK\3\4\0"}
    contents["c.rar.uu"] = b"begin 644 c.rar\n" + binascii.b2a_uu(b"Rar!\0")[:-1] + b"xy\n`\nend\n"
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    with tarfile.open(source, "w") as archive:
        for name in contents:
            archive.add(tmp_path / name, arcname=f"one/{name}")
    folder = unpacked(tmp_path / "cache" / "one", lambda at: os.link(source, at / "one.tar"))
    corpus = corpus_of("one", unpacked(tmp_path / "cache" / "one", lambda _: None))
    assert [file.name for file in corpus.films] == ["a.png", "empty"]
    assert [file.name for file in corpus.archives] == ["z.zip", "c.rar"]
    assert corpus.archives[1].read_bytes() == uudecoded(contents["c.rar.uu"]) == b"Rar!\0"
    assert corpus.packed == [folder / PACKED / "one.tar"]


@pytest.mark.slow
def test_a_corpus_is_tried_by_films_archives_and_packed(model: Path, tmp_path: Path):
    source = tmp_path / "source.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        for number in range(3):
            (tmp_path / "film").write_bytes(whole()["PNG"])
            archive.add(tmp_path / "film", arcname=f"{number}.png")
    corpus = Corpus("one", [tmp_path / "film"] * 3, [source], [source])
    rows = list(tried_corpus(model, tmp_path / "tried", corpus, times=2))
    assert [row.outcomes for row in rows] == ["read 3", "opened 1", "read 4"]


def test_a_corpus_that_cannot_be_had_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def fails(folder: Path) -> None:
        code = "import sys; sys.exit('first\\nno https://name:word@place')"
        run_in(folder, sys.executable, "-c", code)

    for name in list(CORPORA):
        monkeypatch.delitem(CORPORA, name)
    monkeypatch.setitem(CORPORA, "one", lambda cache: unpacked(cache / "one", fails))
    assert list(public_corpora(tmp_path)) == []
    written = capfd.readouterr().out
    assert re.fullmatch(r"one cannot be had, .+ status 1: no https://place\n", written)
    assert list(tmp_path.iterdir()) == []


def test_what_libraries_write_themselves_is_wrong():
    with chatter() as written:
        os.write(2, b"libpng error: x\n")
    assert written == ["libpng error: x"]
    row = tallied("films", Tried(["read"], [], []), [], written)
    assert (row.tried, row.held) == (2, 1)

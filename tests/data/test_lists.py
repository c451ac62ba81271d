"""Lists of films are read as people write them; what is no list is refused in one line."""

import gzip

import numpy as np
import pytest

from lucency.data.csv_tables import read_names

NAMES = ["00000001_000.png", "00000002_000.png"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nih.txt", "00000001_000.png\n00000002_000.png"),
        ("labels.txt", "00000001_000.png 0 1 0\n\n00000002_000.png 0 0 0\n"),
        ("marked.txt", "00000001_000.png, 0.5, 1;\n00000002_000.png\t-1\t+1.0\n"),
        ("windows.txt", "00000001_000.png\r\n00000002_000.png\r\n"),
        ("notepad.txt", "\ufeff00000001_000.png\r\n00000002_000.png\r\n"),
        ("notes.txt", '# bad films\n\n00000001_000.png # blurred\n#x\n"00000002_000.png"\n'),
        ("headed.txt", "Image Index\n00000001_000.png\n00000002_000.png\n"),
        ("table.tsv", "path\tMass\n00000001_000.png\t1\n00000002_000.png\t0\n"),
        ("excel.csv", "IMAGE;Mass\n00000001_000.png;1\n00000002_000.png;0\n;\n"),
        ("table.csv", "Image Index,prob_Mass\n00000001_000.png,0.1\n00000002_000.png,0.2\n"),
        ("bare.csv", "00000001_000.png\n00000002_000.png\n"),
    ],
)
def test_names_are_read_whatever_stands_beside_them(tmp_path, name, text):
    (tmp_path / name).write_text(text, newline="")
    np.testing.assert_array_equal(read_names(tmp_path / name), NAMES)


def test_a_whole_line_is_a_name_blanks_too(tmp_path):
    names = ["chest film 7.png", "second look", "a#1", "12 3.png", "dr.john 12.png", "dr.john 12"]
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "list.txt").write_text("\r\n".join(names), encoding=encoding)
        assert read_names(tmp_path / "list.txt").tolist() == names


def test_a_packed_table_is_read(tmp_path):
    with gzip.open(tmp_path / "table.csv.gz", "wt") as file:
        file.write("image\n00000001_000.png\n00000002_000.png\n")
    np.testing.assert_array_equal(read_names(tmp_path / "table.csv.gz"), NAMES)


def test_the_published_lists_have_their_published_lengths(shared):
    nih = shared / "nih"
    assert len(read_names(nih / "train_val_list.txt")) == 86_524
    assert len(read_names(nih / "test_list.txt")) == 25_596
    assert len(read_names(nih / "zech" / "preds.csv")) == 22_433


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("absent.txt", None, "no such file"),
        ("empty.txt", b"\n \n", "found no name"),
        ("binary.txt", b"\x89PNG\xff\xfe", "found a picture"),
        ("list.csv", b"PK\x03\x04", "found a damaged zip archive or workbook, expected a list"),
        ("codes.txt", bytes(range(1, 32)), "is no text"),
        ("other.csv", b"film_id,Mass\n1,0\n", "found the columns film_id, Mass"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_names(tmp_path / name)

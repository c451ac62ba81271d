"""What `try_fuzz` begins with, and that a fuzzer's process that fails is seen."""

from pathlib import Path

from lucency.data.dicom import decode_dicom
from lucency.data.images import decode_film
from torture.parser_tries import READ, outcome
from torture.try_fuzz import fuzzed, targets


def test_what_the_decoders_begin_with_is_read():
    for name, decode in {"decode_film": decode_film, "decode_dicom": decode_dicom}.items():
        assert {
            outcome(lambda content=one, act=decode: act(content)) for one in targets()[name]
        } == {READ}
    assert all(targets().values())


def test_a_process_that_fails_is_wrong(tmp_path: Path):
    row = fuzzed("no such parser", tmp_path / "no-library", tmp_path, tmp_path, seconds=1)
    assert row.tried > row.held == 0

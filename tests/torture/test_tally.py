"""The docs show what scripts counted, no more and no less; a tally counts what is right."""

import os
import re
from pathlib import Path

import pytest

from torture.tally import RESULTS, as_table, tally

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
PLACE = "(?s)(<!-- {} -->\n).*?(\n<!-- end -->)"


def test_a_tally_counts_what_is_right_and_names_all_that_came():
    found = tally("doors", ["ok", "refused", "ok", "crashed"], right=lambda kind: kind != "crashed")
    assert found == ("doors", 4, 3, "crashed 1, ok 2, refused 1")


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.csv")), ids=lambda file: file.stem)
def test_the_docs_show_what_was_counted(file: Path):
    page, place = PAGE.read_text(), PLACE.format(file.stem)
    assert re.search(place, page), f"docs/reliability.md has no place for {file.name}"
    written = re.sub(place, lambda found: f"{found[1]}\n{as_table(file)}\n{found[2]}", page)
    if os.environ.get("LUCENCY_GOLDEN") == "write":
        PAGE.write_text(written)
    assert page == written, "docs and results differ: LUCENCY_GOLDEN=write rewrites the page"


def test_the_docs_show_no_results_that_are_not_there():
    shown = set(re.findall(r"<!-- (?!end)(\S+) -->", PAGE.read_text()))
    assert shown == {file.stem for file in RESULTS.glob("*.csv")}


def test_every_script_has_been_run_or_is_named_as_not_run():
    scripts = {file.stem.removeprefix("try_") for file in Path(__file__).parent.glob("try_*.py")}
    absent = re.search(r"^Not counted yet: (.*)\.$", PAGE.read_text(), re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", absent[1])) if absent else set()
    assert scripts == {file.stem for file in RESULTS.glob("*.csv")} | named
    assert not named & {file.stem for file in RESULTS.glob("*.csv")}

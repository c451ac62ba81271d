"""Every help page has one example, and it works: in a folder where all that it names is small."""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from commanded import fetch_nothing, named_commands, serve_nothing
from lucency.cli.app import app

PAGES = {"lucency": app.info.help or "", **{n: c.help or "" for n, c in named_commands().items()}}
EXAMPLE = re.compile(r"^ *Example:\n\n *(.+)$", re.MULTILINE)
SLOW = ("study leakage", "study preparation", "study sweep", "run")  # of more than a few seconds
TRIAL = {
    "data phantom": ("--films", "12", "--size", "64"),
    "study preparation": ("--clips", "3", "--tiles", "4", "--films", "8", "--repeats", "1"),
    "study cross-validation": ("--set", 'network=[{name="test_resnet"}]'),
}
IN_DOCUMENTS = {"report": "report.md"}  # whose commands are run by tests/test_docs.py


def example(page: str) -> list[str]:
    """Return the words of a page's one example."""
    found = EXAMPLE.findall(PAGES[page])
    assert len(found) == 1, f"{page}: {found}"
    return shlex.split(found[0])


def params() -> list[object]:
    """Return the pages whose examples are run here: of several with one example the last."""
    pages = {" ".join(example(page)): page for page in PAGES if page not in IN_DOCUMENTS}
    return [
        pytest.param(page, marks=[pytest.mark.slow] * (page in SLOW)) for page in pages.values()
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_one_example_of_its_own_command(page: str):
    program, *words = example(page)
    if program == "accelerate":
        assert words[:3] == ["launch", "-m", "lucency"]
        words = words[3:]
    assert (program in ("lucency", "accelerate"), PAGES[page].count("Example")) == (True, 1)
    command = page.removeprefix("lucency").split()
    assert words[: len(command)] == command
    assert sum(len(word) + 1 for word in words) < 92, "an example is one line"
    if page in IN_DOCUMENTS:
        document = Path(__file__).parents[2] / "docs" / IN_DOCUMENTS[page]
        assert f"$ {program} {' '.join(words)}\n" in document.read_text()


@pytest.mark.parametrize("page", params())
@pytest.mark.usefixtures("figures_once")
def test_the_example_works(page: str, finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(finished)
    folder = "lucency.config.protocol.protocol_folder"
    monkeypatch.setattr(folder, lambda: finished / "protocols")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setattr("lucency.deploy.start.run_server", serve_nothing)
    monkeypatch.setattr("lucency.data.download.download", fetch_nothing)
    words = example(page)
    words = words[words.index("lucency") + 1 :]
    for option in ("--out", "--csv"):
        place = Path(words[words.index(option) + 1]) if option in words else None
        if place and place != Path("runs/demo") and place.is_dir():
            shutil.rmtree(place)
    if page == "audit score-review":
        shutil.rmtree("review", ignore_errors=True)
        typed(*example("audit review")[1:])
        form = pd.read_csv("review/form.csv", dtype=str)
        form.assign(reviewer="A. B.", answer="yes").to_csv("filled.csv", index=False)
    printed = typed(*words, *TRIAL.get(page, ()))
    assert printed
    for place in (words[k + 1] for k, word in enumerate(words) if word in ("--out", "--csv")):
        assert Path(place).exists()


def typed(*words: str) -> str:
    """Run the command in this process and return what it prints."""
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code in ((0, 1) if words[0] == "check" else (0,)), done.output
    return done.stdout

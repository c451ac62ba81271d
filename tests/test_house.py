"""The house rules that no linter holds. Every rule is also shown a case that breaks it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lucency

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "lucency"
HEAVY = ("torch", "torchvision", "timm", "accelerate", "albumentations", "matplotlib", "sklearn")
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:work|home|root|tmp|Users)(?![\w.-])")


def more_than_docstring(text: str) -> bool:
    """Say whether a room's __init__ is more than one docstring."""
    body = ast.parse(text).body
    return len(body) != 1 or ast.get_docstring(ast.parse(text)) is None


def machine_paths(text: str) -> list[str]:
    """Return the lines that name a place on somebody's machine."""
    return [line for line in text.splitlines() if MACHINE_PATH.search(line)]


def imported(statement: str) -> set[str]:
    """Return the top-level packages that a fresh Python holds after `statement`."""
    program = f"import sys\ntry:\n    {statement}\nexcept SystemExit:\n    pass\n"
    program += "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    run = [sys.executable, "-c", program]
    done = subprocess.run(run, check=True, capture_output=True, text=True)
    return set(done.stderr.split())


def text_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout: the list of tracked files is absent")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()[:4096]]


def test_rooms_begin_with_one_sentence():
    rooms = sorted(PACKAGE.glob("*/__init__.py"))
    assert {file.parent for file in rooms} == {file.parent for file in PACKAGE.glob("*/*.py")}
    assert [file for file in rooms if more_than_docstring(file.read_text())] == []


def test_no_file_names_a_place_on_somebody_s_machine():
    found = {str(f.relative_to(ROOT)): machine_paths(f.read_text()) for f in text_files()}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("module", ["lucency", "lucency.cli.app"])
def test_an_import_is_light(module: str):
    assert imported(f"import {module}").isdisjoint({*HEAVY, "numpy", "pandas", "scipy", "cv2"})


def test_help_is_light():
    program = "import lucency.cli.app; sys.argv[1:] = ['--help']; lucency.cli.app.main()"
    assert imported(program).isdisjoint({*HEAVY, "numpy", "pandas", "pydantic"})


def test_torch_waits_for_the_stage_that_needs_it():
    program = "import lucency.cli.output, lucency.pipeline.experiment, lucency.evaluation.summary"
    assert imported(program).isdisjoint({"torch", "timm", "accelerate"})


def test_these_guards_can_fail():
    assert more_than_docstring('"""A room."""\n\nfrom lucency import values\n')
    assert more_than_docstring("")
    assert not more_than_docstring('"""A room."""\n')
    for place in ("work/main", "home/ada", "root", "tmp/x.toml"):
        assert machine_paths(f'folder = "/{place}"\n')
        assert not machine_paths(f"https://a.org/{place} n/{place} ~/{place} ../{place}")
    assert not machine_paths("runs/demo ../shared/nih /rooted")
    assert "numpy" in imported("import lucency.core.manifest")


def test_the_public_names_are_where_the_package_says() -> None:
    for name in lucency.__all__:
        assert getattr(lucency, name).__name__ == name
    with pytest.raises(AttributeError, match="expected one of"):
        _ = lucency.nothing

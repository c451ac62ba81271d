"""The house rules that no linter holds. Every rule is also shown a case that breaks it."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import lucency
from bytecode import bytecode_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "lucency"
HEAVY = ("torch", "torchvision", "timm", "accelerate", "albumentations", "matplotlib", "sklearn")
PACKAGES = {
    "core", "config", "phantom", "data", "balance", "evaluation", "models", "ensemble", "audit",
    "explain", "report", "pipeline", "deploy", "cli",
}  # fmt: skip
RIDDLES = re.compile(
    r"\b(told|said|asked|anybody|drawn anew|redrawn|knows? nothing)\b", flags=re.IGNORECASE
)
FIELD = {  # the field's term -> the module of its thing
    "baseline": "explain/baselines.py",
    "ground truth": "phantom/cohort.py",
    "confidence interval": "evaluation/bootstrap.py",
    "inference": "models/inference.py",
    "heat map": "explain/heatmaps.py",
    "embedding": "models/features.py",
    "cross-validation": "pipeline/run_audit.py",
    "preprocessing": "data/preprocess.py",
    "calibration": "evaluation/calibration.py",
    "leaderboard": "evaluation/compare.py",
}
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


def riddles(text: str) -> list[str]:
    """Return the words that a reader's search would not find: see `docs/glossary.md`."""
    return RIDDLES.findall(text)


def repeated(names: Iterable[str]) -> list[str]:
    """Return the names that stand for two things."""
    return sorted(name for name, times in Counter(names).items() if times > 1)


def classes(text: str) -> list[str]:
    return [one.name for one in ast.parse(text).body if isinstance(one, ast.ClassDef)]


def text_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode:
        pytest.skip("not a git checkout, which lists the tracked files: run it in one")
    files = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()[:4096]]


def test_libraries_keep_their_own_bytecode():
    assert "jaxtyping" in bytecode_name("", str(PACKAGE / "core" / "manifest.py"))
    assert bytecode_name("", pytest.__file__) == pytest.__cached__


def test_rooms_begin_with_one_sentence():
    rooms = sorted(PACKAGE.glob("*/__init__.py"))
    assert {file.parent for file in rooms} == {file.parent for file in PACKAGE.glob("*/*.py")}
    assert [file for file in rooms if more_than_docstring(file.read_text())] == []


def test_no_file_names_a_place_on_somebody_s_machine():
    found = {str(f.relative_to(ROOT)): machine_paths(f.read_text()) for f in text_files()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_root_holds_packages_and_the_door():
    there = {file.name for file in PACKAGE.iterdir() if file.name != "__pycache__"}
    assert there == {*PACKAGES, "__init__.py", "__init__.pyi", "__main__.py", "py.typed"}


def test_no_two_modules_or_classes_share_a_name():
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    assert repeated(file.stem for file in files) == []
    assert repeated(name for file in files for name in classes(file.read_text())) == []


def test_words_are_plain():
    places = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.jinja"), *ROOT.glob("tests/golden/help/*")]
    places += [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    found = {str(file.relative_to(ROOT)): riddles(file.read_text()) for file in places}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("term", FIELD)
def test_the_field_s_terms_are_where_their_things_are(term: str):
    text = re.sub(r"\s+", " ", (PACKAGE / FIELD[term]).read_text()).lower()
    assert term in text


@pytest.mark.parametrize("module", ["lucency", "lucency.cli.app"])
def test_an_import_is_light(module: str):
    assert imported(f"import {module}").isdisjoint({*HEAVY, "numpy", "pandas", "scipy", "cv2"})


def test_help_is_light():
    program = "import lucency.cli.app; sys.argv[1:] = ['--help']; lucency.cli.app.main()"
    assert imported(program).isdisjoint({*HEAVY, "numpy", "pandas", "pydantic"})


def test_torch_waits_for_the_stage_that_needs_it():
    program = "import lucency.cli.output, lucency.pipeline.stages, lucency.evaluation.summary"
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
    assert riddles("What networks said; maps that know nothing") == ["said", "know nothing"]
    assert riddles("predictions, message, afraid, tasked") == []
    assert repeated(["split", "plan", "split"]) == ["split"]
    assert classes("class Split:\n    pass\n") == ["Split"]


def test_the_public_names_are_where_the_package_says() -> None:
    for name in set(lucency.__all__) - {"__version__"}:
        assert getattr(lucency, name).__name__ == name
    with pytest.raises(AttributeError, match="expected one of"):
        _ = lucency.nothing

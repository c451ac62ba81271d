"""The built wheel is enough: installed anywhere, its protocols run by name."""

import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from lucency.config.protocol import find_protocol, list_protocols, read_protocol

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "data.films=40", "data.size=64", "preparation.size=32", "training.epochs=1",
    "evaluation.resamples=20", "explanation.methods=[]", "ensemble.ensembles=[]",
    'network=[{name="test_resnet"}]',
)  # fmt: skip


def test_protocols_are_listed_with_cost_and_result():
    listed = {one.name: one for one in list_protocols()}
    assert {"quick", "demo", "chestxray14", "leak"} <= set(listed)
    assert set(listed) == {file.stem for file in (ROOT / "protocols").glob("*.toml")}
    for one in listed.values():
        assert one.about.endswith((".", "?", ":")), one
    assert listed["leak"].cost.startswith("about 50 minutes on one x86-64 core")
    assert ".926 and .847" in listed["leak"].result
    assert listed["chestxray14"].cost.startswith("Needs the 112,120 films")
    assert listed["chestxray14"].result.startswith("Not run to the end by us")


def test_a_protocol_is_found_by_name_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert read_protocol("quick").name == read_protocol(ROOT / "protocols" / "quick.toml").name
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_bytes(find_protocol("quick").read_bytes())
    assert find_protocol("mine.toml") == Path("mine.toml")
    Path("quick").mkdir()  # as by lucency run quick --out quick, which may be given again
    assert find_protocol("quick").is_file()
    with pytest.raises(ValueError, match="nearest is 'demo'"):
        read_protocol("demmo")


def test_the_lock_has_hashes_of_every_fixed_version_and_no_other():
    fixed = (ROOT / "constraints.txt").read_text().split()
    lock = (ROOT / "requirements.lock").read_text()
    entry = re.compile(r"^(\S+==\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)
    assert [one for one, _ in entry.findall(lock)] == fixed
    rest = entry.sub("", lock).split("\n")
    assert [line for line in rest if line and not line.startswith("#")] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the wheel and the source distribution."""
    place = tmp_path_factory.mktemp("built")
    words = [sys.executable, "-m", "hatchling", "build", "--directory", str(place)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return place


@pytest.mark.slow
def test_wheel_and_source_hold_protocols_and_types(built: Path):
    (wheel,) = built.glob("*.whl")
    (source,) = built.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for file in ("protocols/quick.toml", "py.typed", "__init__.pyi", "report/report.css"):
        assert f"lucency/{file}" in names
    with tarfile.open(source) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"protocols/quick.toml", "pyproject.toml", "src/lucency/py.typed"} <= files
    assert not any(file.startswith((".venv", "runs")) for file in files)


@pytest.mark.slow
def test_the_installed_wheel_runs_a_protocol_by_name(built: Path, tmp_path: Path):
    (wheel,) = built.glob("*.whl")
    target, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def python(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert Path(python("-c", "import lucency; print(lucency.__file__)").strip()).is_relative_to(
        target
    )
    assert "quick: " in python("-m", "lucency", "protocols")
    changes = [word for change in TINY for word in ("--set", change)]
    answer = python("-m", "lucency", "run", "quick", "--out", "runs/quick", *changes, "--json")
    assert (work / json.loads(answer)["report"]).is_file()

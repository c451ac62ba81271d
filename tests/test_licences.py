"""No GPL or AGPL package is in the core or in the default extras, whatever it is needed by."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BESIDE = ("dask", "slurm", "s3", "sweep", "tensorboard", "mlflow")  # extras that users choose
COPYLEFT = re.compile(
    r"(?<!L)(?<!Lesser )\bA?GPL|(?<!Lesser )General Public License", re.IGNORECASE
)
FIELDS = ("License-Expression", "License", "Classifier")
HEAD = 120  # letters of a field that name a licence; some hold its whole text


def needed(extras: Iterable[str]) -> dict[str, Distribution | None]:
    """Return all packages that Lucency needs with these extras, by name; None where absent here."""
    optional = PROJECT["optional-dependencies"]
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in optional[extra])]
    found: dict[str, Distribution | None] = {}
    seen, left = set[str](), [(Requirement(text), ("",)) for text in texts]
    while left:
        one, wanted = left.pop()
        applies = one.marker is None or any(one.marker.evaluate({"extra": e}) for e in wanted)
        if not applies or str(one) in seen or one.name == "lucency":
            continue
        seen.add(str(one))
        try:
            found[canonicalize_name(one.name)] = made = distribution(one.name)
        except PackageNotFoundError:
            found.setdefault(canonicalize_name(one.name), None)
            continue
        left += [(Requirement(text), ("", *one.extras)) for text in made.requires or ()]
    return found


def licence(one: Distribution) -> str:
    """Return what a package's metadata state about its licence."""
    about = one.metadata
    stated = [text[:HEAD] for field in FIELDS for text in about.get_all(field, [])]
    return " | ".join(text for text in stated if not text.startswith(("Prog", "Oper", "Intended")))


def is_copyleft(text: str) -> bool:
    """Say whether a text names the GPL or the AGPL; a choice beside another licence is none."""
    return COPYLEFT.search(text) is not None and " OR " not in text


@pytest.mark.parametrize("extras", [(), ("serve", "dicom", "dicom-out"), BESIDE], ids=str)
def test_no_package_is_gpl(extras: tuple[str, ...]):
    packages = needed(extras)
    assert len(packages) > 50
    if absent := [name for name, one in packages.items() if one is None]:
        pytest.skip(f"not installed here: {', '.join(absent)}; pip install 'lucency[...]' first")
    stated = {name: licence(one) for name, one in packages.items() if one}
    assert {name: text for name, text in stated.items() if is_copyleft(text)} == {}
    assert {name for name, text in stated.items() if not text} <= {"cuda-toolkit"}
    assert "albumentationsx" not in packages


def test_the_default_extras_are_these():
    assert PROJECT["optional-dependencies"]["all"] == ["lucency[serve,dicom,dicom-out]"]
    listed = {*PROJECT["optional-dependencies"]}
    assert listed == {"serve", "dicom", "dicom-out", "all", "docs", "tpu", "dev", *BESIDE}


def test_what_is_lgpl_is_named():
    """OpenCV's wheel holds FFmpeg; SECURITY.md names it, with the licence that the wheel states."""
    held = distribution("opencv-python-headless").read_text("LICENSE-3RD-PARTY.txt") or ""
    _, _, of_ffmpeg = held.partition("FFmpeg is redistributed within all opencv-python packages.")
    paragraph = of_ffmpeg.partition("-----")[0]
    assert re.search(r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 2\.1", paragraph)
    assert "FFmpeg under the LGPL 2.1 or later" in (ROOT / "SECURITY.md").read_text()


def test_the_search_can_fail():
    for text in ("GPL-3.0-or-later", "GNU General Public License v2 (GPLv2)", "AGPL-3.0", "GPLv3"):
        assert is_copyleft(text)
    for text in ("LGPL-2.1", "GNU Lesser General Public License v3", "MIT", "GPL-2.0 OR MIT"):
        assert not is_copyleft(text)
    assert "pandas" in needed(())
    assert "starlette" in needed(("serve",))

"""Every table that a collection's reader opens is an input, in whichever folder it lies."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from layouts import (
    MIMIC,
    write_brax,
    write_chexpert,
    write_chexpert_plus,
    write_cxr_lt,
    write_mimic_cxr,
)
from layouts_other import nih_lt, openi, padchest, rsna, siim, vindr, vindr_kaggle
from lucency.config.sections import Source
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.sources import film_inputs

OPENED: list[list[Path]] = []  # files opened since, of each `opened` that is entered


def _note(event: str, about: tuple[object, ...]) -> None:
    if OPENED and event == "open" and isinstance(about[0], str | Path):
        OPENED[-1].append(Path(about[0]))


sys.addaudithook(_note)  # which cannot be taken away again


@contextmanager
def opened() -> Iterator[list[Path]]:
    """Lend the list of the files that are opened."""
    OPENED.append([])
    try:
        yield OPENED[-1]
    finally:
        OPENED.pop()


class Tree(NamedTuple):
    """A collection's layout: which, what writes it, `data.labels`, and where files lie instead."""

    source: str
    write: Callable[..., Path]
    labels: str = ""
    moved: dict[str, str] = {}  # noqa: RUF012 - never changed

    def below(self, root: Path) -> Path:
        self.write(root)
        for file, place in self.moved.items():
            (root / place).parent.mkdir(parents=True, exist_ok=True)
            (root / file).rename(root / place)
        return root


def mimic_and_cxr_lt(root: Path) -> Path:
    for version in ("2023", "2024"):
        write_cxr_lt(write_mimic_cxr(root), version=version)
    return root


METADATA, SPLIT, CHEXPERT, NEGBIO = (
    MIMIC.format(kind) for kind in ("metadata", "split", "chexpert", "negbio")
)
READ = "mimic-cxr-2.1.0-test-set-labeled.csv"
DEEP = {METADATA: f"jpg/{METADATA}", SPLIT: f"jpg/split/{SPLIT}"}
SINGLE = "nih-cxr-lt_single-label_{}.csv"
TREES = [
    Tree("chexpert", write_chexpert),
    Tree("chexpert", write_chexpert, "valid.csv"),
    Tree("chexpert-plus", write_chexpert_plus),
    Tree("chexpert-plus", write_chexpert_plus, "report"),
    Tree("mimic-cxr", write_mimic_cxr),
    Tree("mimic-cxr", write_mimic_cxr, "", {**DEEP, CHEXPERT: f"jpg/labels/{CHEXPERT}"}),
    Tree("mimic-cxr", write_mimic_cxr, "negbio", {**DEEP, NEGBIO: f"jpg/labels/{NEGBIO}"}),
    Tree("mimic-cxr", write_mimic_cxr, "test-set-labeled", {**DEEP, READ: f"jpg/labels/{READ}"}),
    Tree("mimic-cxr", write_mimic_cxr, f"a/b/c/{CHEXPERT}", {CHEXPERT: f"a/b/c/{CHEXPERT}"}),
    Tree("cxr-lt", mimic_and_cxr_lt),
    Tree("cxr-lt", mimic_and_cxr_lt, "2023"),
    Tree("cxr-lt", mimic_and_cxr_lt, "2023", {"cxr-lt-2023": "mimic-cxr-jpg/cxr-lt-2023"}),
    Tree("brax", write_brax),
    Tree("padchest", padchest),
    Tree("vindr-cxr", lambda root: vindr(root, sizes=True)),
    Tree("vindr-cxr", vindr_kaggle),
    Tree("openi", openi),
    Tree("openi", lambda root: openi(root, archive=True)),
    Tree("openi", openi, "", {"ecgen-radiology": "NLMCXR_reports/ecgen-radiology"}),
    Tree("openi", openi, "reports-2", {"ecgen-radiology": "reports-2"}),
    Tree("rsna", rsna),
    Tree("siim", lambda root: siim(root, mapped="csv")),
    Tree("nih-lt", nih_lt),
    Tree("nih-lt", nih_lt, "LongTailCXR"),
    Tree("nih-lt", nih_lt, "", {"PruneCXR": "not-read", "LongTailCXR": "PruneCXR"}),
    Tree("nih-lt", nih_lt, "", {"LongTailCXR": "not-read", "PruneCXR": "LongTailCXR"}),
    Tree("nih-lt", nih_lt, "lists/of/2023", {"PruneCXR": "lists/of/2023"}),
]


def test_every_collection_has_a_tree():
    assert {tree.source for tree in TREES} == set(COLLECTIONS)


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: f"{tree.source}-{tree.labels}")
def test_every_file_that_is_read_is_an_input(tmp_path: Path, tree: Tree):
    root = tree.below(tmp_path / "films")
    collection = COLLECTIONS[tree.source]
    place = Source.model_validate({"source": tree.source, "root": str(root), "labels": tree.labels})
    with opened() as files:
        collection.read(root, tree.labels)
    read = {file for file in files if file.is_relative_to(root)}
    assert read
    before = film_inputs(place, findings=collection.findings)
    for file in sorted(read):
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        after = film_inputs(place, findings=collection.findings)
        file.write_bytes(content)
        assert after != before, file.relative_to(root)

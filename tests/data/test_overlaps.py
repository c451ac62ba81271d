"""Which sources share films or patients, as ../shared/facts/datasets.md, sections 9 and 10."""

from typing import get_args

import pytest

from lucency.config.sections import Source, SourceName
from lucency.data.collections.overlaps import COLLECTION_OF, overlap, share_films

FAMILIES = [
    {"nih", "rsna", "siim", "nih-lt"},
    {"mimic-cxr", "cxr-lt"},
    {"chexpert", "chexpert-plus"},
]


def test_every_source_stands_in_the_table_but_those_without_a_collection():
    assert set(get_args(SourceName)) - set(COLLECTION_OF) == {"csv", "phantom", "dicom"}


@pytest.mark.parametrize("one", get_args(SourceName))
def test_families_share_and_others_do_not(one: str):
    family = next((f for f in FAMILIES if one in f), {one} & set(COLLECTION_OF))
    assert {other for other in get_args(SourceName) if share_films(one, other)} == family
    assert all(share_films(other, one) for other in family)


@pytest.mark.parametrize(
    ("one", "other", "why"),
    [
        ({"source": "nih"}, {"source": "siim"}, "'nih' and 'siim' are both films of ChestX-ray14"),
        ({"source": "nih", "root": "a"}, {"source": "nih", "root": "b"}, "both are ChestX-ray14"),
        ({}, {"films": 30}, "both are phantoms of hospital 1 from seed 0"),
        ({}, {"seed": 1}, ""),
        ({}, {"hospital": 2}, ""),
        ({}, {"root": "drawn"}, ""),
        ({"source": "csv", "root": "/a"}, {"source": "csv", "root": "/b"}, ""),
        ({"source": "csv", "root": "/a", "labels": "t.csv"}, {"source": "csv", "root": "/a",
         "labels": "t.csv"}, "both are /a/t.csv"),
        ({"source": "dicom", "root": "/a/b/..", "labels": "t.csv"}, {"source": "dicom",
         "root": "/a", "labels": "u.csv"}, "both are /a"),
        ({"source": "csv", "root": "/a"}, {"source": "padchest", "root": "/a"}, ""),
    ],
)  # fmt: skip
def test_overlap_of_sources(one: dict, other: dict, why: str):
    assert overlap(Source.model_validate(one), Source.model_validate(other)) == why
    assert bool(overlap(Source.model_validate(other), Source.model_validate(one))) == bool(why)

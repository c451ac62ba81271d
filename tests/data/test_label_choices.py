"""A source's own labels become the protocol's findings as stated, and every step is counted.

Truth: cells written by hand, and CheXpert's own label file (in torchxrayvision) read by pandas.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import torchxrayvision

from lucency.config.protocol import parse_protocol
from lucency.config.sections import SOURCE_KEYS, Source
from lucency.core.manifest import (
    BOX_COLUMNS,
    FINDINGS,
    Manifest,
    cells_where,
    empty_boxes,
    load_manifest,
    save_manifest,
)
from lucency.data.collections.catalogue import COLLECTIONS
from lucency.data.collections.collection import PublicCollection
from lucency.data.collections.padchest import PADCHEST
from lucency.data.label_choices import FEW, choose_films, choose_labels, own_names, policy_of
from lucency.data.labels import read_nih_tables
from lucency.data.sources import SOURCES, list_films, read_films, refuse_unstated, stated_findings
from lucency.phantom.dataset import list_phantom

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAN = np.nan
CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
FAMILY = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Pneumonia")
UNCERTAIN = {  # of CheXpert's training films; facts: datasets.md, section 1
    "Atelectasis": 33_739, "Cardiomegaly": 8_087, "Consolidation": 27_742, "Edema": 12_984,
    "Effusion": 11_628, "Pneumonia": 18_770,
}  # fmt: skip
NORMAL = 22_381  # films of No Finding; the same section


def collection(findings: Sequence[str], **about: Any) -> PublicCollection:
    """Return a collection of these own names, whose reader no test calls."""
    return PublicCollection(
        title="Films of Ulm", read=lambda root, labels: films_of({}), findings=tuple(findings),
        tables=(), **about,
    )  # fmt: skip


CHEXPERT_LIKE = collection(
    CHEXPERT,
    align={"Pleural Effusion": "Effusion"},
    no_finding="No Finding",
    beside_no_finding=("Support Devices",),
)
VINDR_LIKE = collection(
    ("Nodule/Mass", "Pleural effusion", "Edema"),
    align={"Nodule/Mass": "Nodule or Mass", "Pleural effusion": "Effusion"},
)


def films_of(labels: dict[str, list[float]], **about: Any) -> Manifest:
    """Return films a, b, c, … whose labels are 1, 0, NaN, or -1 where they are uncertain."""
    names, label = tuple(labels), np.array(list(labels.values()), dtype=np.float32).T
    image = np.array([chr(97 + place) for place in range(len(label))])
    unsure = label == -1
    return Manifest(
        findings=names,
        image=image,
        patient=np.arange(len(label), dtype=np.int64),
        label=np.where(unsure, np.float32(NAN), label),
        facts=pd.DataFrame(index=range(len(label))),
        uncertain=cells_where(unsure, image=image, findings=names),
        **{"boxes": empty_boxes(), "origin": "invented", **about},
    )


def chosen(
    films: Manifest, findings: Sequence[str], own: PublicCollection, **choices: Any
) -> Manifest:
    source = Source.model_validate({"source": "vindr-cxr", **choices})
    return choose_labels(films, source=source, findings=tuple(findings), collection=own)


def steps(films: Manifest) -> dict[tuple[str, str], int]:
    return {(step, finding): count for step, finding, count in films.reading.to_numpy().tolist()}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """CheXpert's training films, as Stanford labels them."""
    folder = Path(torchxrayvision.__file__).parent / "data"
    return pd.read_csv(folder / "chexpert_train.csv.gz")


@pytest.fixture(scope="module")
def chexpert(table: pd.DataFrame) -> Manifest:
    label = table[list(CHEXPERT)].to_numpy(dtype=np.float32)
    image = table["Path"].to_numpy(dtype=str)
    return Manifest(
        findings=CHEXPERT,
        image=image,
        patient=table["Path"].str.extract(r"patient(\d+)")[0].to_numpy(dtype=np.int64),
        label=np.where(label == -1, np.float32(NAN), label),
        facts=pd.DataFrame({"view": table["AP/PA"].fillna("")}),
        boxes=empty_boxes(),
        origin="CheXpert",
        uncertain=cells_where(label == -1, image=image, findings=CHEXPERT),
    )


@pytest.fixture(scope="module")
def aligned(chexpert: Manifest) -> Manifest:
    return chosen(chexpert, FAMILY, CHEXPERT_LIKE, readers="majority")


def test_no_finding_states_zeros_of_chexpert(table: pd.DataFrame, aligned: Manifest):
    """22,381 stated negatives of each; every zero that the file does not state itself is theirs."""
    negated = (table["No Finding"] == 1).to_numpy()
    assert negated.sum() == NORMAL
    for place, finding in enumerate(FAMILY):
        own = table["Pleural Effusion" if finding == "Effusion" else finding]
        expected = own.where(~negated | own.notna(), 0).replace(-1, NAN)
        np.testing.assert_array_equal(aligned.label[:, place], expected)
        assert (aligned.label[negated, place] == 0).sum() == NORMAL
        assert steps(aligned)["No Finding: 0", str(own.name)] == own[negated].isna().sum()
    assert ("No Finding: 0", "Support Devices") not in steps(aligned)
    assert steps(aligned)["in the label files", ""] == len(aligned) == 223_414


def test_no_finding_states_nothing_of_what_stands_beside_it(chexpert: Manifest):
    films = chosen(chexpert, ("Support Devices", "Fracture"), CHEXPERT_LIKE)
    assert np.isnan(films.label[:, 0]).sum() == 100_197 + 1_079  # empty and uncertain, as before
    assert (films.label[chexpert.label[:, 0] == 1, 1] == 0).sum() == NORMAL
    off = chosen(chexpert, ("Fracture",), CHEXPERT_LIKE, no_finding_negates=False)
    assert (off.label[:, 0] == 0).sum() == 2_512
    assert steps(off)["left out, no finding of the protocol", "No Finding"] == NORMAL


def test_uncertain_labels_of_chexpert_are_counted_and_resolved(
    chexpert: Manifest, aligned: Manifest
):
    """The habit of datasets.md, section 1: some findings ones, the others zeros."""
    assert aligned.uncertain["finding"].value_counts().to_dict() == UNCERTAIN
    assert {name: steps(aligned)["uncertain: ignore", name] for name in FAMILY} == UNCERTAIN
    policy = {"Atelectasis": "ones", "Edema": "ones", "": "zeros"}
    films = chosen(chexpert, FAMILY, CHEXPERT_LIKE, uncertain=policy)
    gained = (films.label == 1).sum(axis=0) - (aligned.label == 1).sum(axis=0)
    lost = (films.label == 0).sum(axis=0) - (aligned.label == 0).sum(axis=0)
    for place, name in enumerate(FAMILY):
        ones = name in ("Atelectasis", "Edema")
        assert (gained[place], lost[place]) == ((UNCERTAIN[name], 0), (0, UNCERTAIN[name]))[
            0 if ones else 1
        ]
    assert films.uncertain["finding"].value_counts().to_dict() == UNCERTAIN
    assert len(films.soft) == 0


def test_soft_targets_are_uniform_and_of_film_finding_and_seed(chexpert: Manifest):
    """Between .55 and .85 (datasets.md, section 1), whatever the order of the films."""
    soft: dict[str, Any] = {"uncertain": {"Pneumonia": "soft"}}
    films = chosen(chexpert, ("Pneumonia", "Edema"), CHEXPERT_LIKE, **soft)
    share = films.soft["share"].to_numpy()
    assert set(films.soft["finding"]) == {"Pneumonia"}
    assert len(share) == UNCERTAIN["Pneumonia"]
    assert share.min() >= 0.55
    assert share.max() <= 0.85
    error = 0.3 / np.sqrt(12 * len(share))
    assert share.mean() == pytest.approx(0.7, abs=5 * error)
    assert share.var() == pytest.approx(0.3**2 / 12, rel=0.05)
    assert np.isnan(films.label[films.is_uncertain]).all()  # evaluation never sees them
    rows = np.random.default_rng(0).permutation(len(chexpert))[:5_000]
    few = chosen(chexpert.take(rows), ("Edema", "Pneumonia"), CHEXPERT_LIKE, **soft)
    known = films.soft.set_index("image")["share"]
    np.testing.assert_array_equal(few.soft["share"], known[few.soft["image"]])
    other = chosen(chexpert.take(rows), ("Pneumonia",), CHEXPERT_LIKE, **soft, seed=1)
    assert (few.soft["share"].to_numpy() != other.soft["share"].to_numpy()).all()
    both = chosen(chexpert.take(rows), ("Edema", "Pneumonia"), CHEXPERT_LIKE, uncertain="soft")
    assert not np.isin(
        both.soft.query("finding == 'Edema'")["share"],
        both.soft.query("finding == 'Pneumonia'")["share"],
    ).any()


@pytest.mark.parametrize(
    ("readers", "label", "targets"),
    [
        ("majority", [0, 0, 1, 1], [0, 0, 1, 1]),
        ("any", [0, 1, 1, 1], [0, 1, 1, 1]),
        ("all", [0, 0, 0, 1], [0, 0, 0, 1]),
        ("soft", [0, 0, 1, 1], [0, 1 / 3, 2 / 3, 1]),
    ],
)
def test_three_readers_become_one_label(readers: str, label: list[int], targets: list[float]):
    """Votes of 0, 1, 2 and 3 of three readers."""
    films = films_of({"Edema": [0, 0, 1, 1]})
    share = pd.DataFrame({"image": ["b", "c"], "finding": "Edema", "share": [1 / 3, 2 / 3]})
    made = chosen(replace(films, soft=share), ["Edema"], VINDR_LIKE, readers=readers)
    assert made.label[:, 0].tolist() == label
    np.testing.assert_allclose(made.targets[:, 0], targets, rtol=1e-6)
    assert steps(made)[f"readers disagree: {readers}", "Edema"] == 2


def test_an_empty_label_is_unknown_or_negative_and_an_uncertain_one_neither():
    films = films_of({"Edema": [1, NAN, -1, NAN], "Nodule/Mass": [0, 1, NAN, -1]})
    kept = chosen(films, ["Edema"], VINDR_LIKE)
    np.testing.assert_array_equal(kept.label[:, 0], [1, NAN, NAN, NAN])
    filled = chosen(films, ["Edema"], VINDR_LIKE, missing="negative")
    np.testing.assert_array_equal(filled.label[:, 0], [1, 0, NAN, 0])
    assert steps(filled)["missing: 0", "Edema"] == 2


def test_no_zero_is_made_of_films_and_names_of_which_a_file_states_nothing():
    films = films_of(
        {"Edema": [1, NAN, NAN], "Pleural effusion": [NAN] * 3, "Nodule/Mass": [0, 0, NAN]}
    )
    made = chosen(films, ["Edema", "Effusion"], VINDR_LIKE, missing="negative")
    np.testing.assert_array_equal(made.label, [[1, NAN], [0, NAN], [NAN, NAN]])
    assert steps(made)["missing: unknown, nothing of the film is stated", ""] == 1
    assert ("missing: 0", "Pleural effusion") not in steps(made)
    about = {"missing": "negative", "source": "csv"}  # where every film has a row
    table = chosen(films, ["Edema", "Effusion"], VINDR_LIKE, **about)
    np.testing.assert_array_equal(table.label, [[1, NAN], [0, NAN], [0, NAN]])


def test_a_finding_of_several_names_is_1_where_any_is_and_0_where_all_are():
    own = collection(("lobar", "round", "air"), align={"lobar": "Atelectasis", "round": "Mass"})
    films = films_of(
        {
            "lobar": [1, 1, 0, 0, 0, -1, -1, NAN],
            "round": [0, NAN, 0, NAN, -1, 0, 1, NAN],
            "air": [0, 0, 1, 0, 0, 0, 0, 1],
        }
    )
    align = {"round": ("Atelectasis", "Nodule"), "air": ""}
    made = chosen(films, ["Atelectasis", "Nodule", "Mass", "air"], own, align=align)
    np.testing.assert_array_equal(made.label[:, 0], [1, 1, 0, NAN, NAN, NAN, 1, NAN])
    assert made.is_uncertain[:, 0].tolist() == [False] * 4 + [True, True, False, False]
    np.testing.assert_array_equal(made.label[:, 1], [0, NAN, 0, NAN, NAN, 0, 1, NAN])
    assert np.isnan(made.label[:, 2:]).all()
    assert steps(made) == {
        ("in the label files", ""): 8,
        ("made of lobar, round", "Atelectasis"): 3,
        ("made of round", "Nodule"): 1,
        ("not stated by the collection", "Mass"): 8,
        ("not stated by the collection", "air"): 8,
        ("left out, no finding of the protocol", "air"): 2,
        ("uncertain: ignore", "Atelectasis"): 2,
        ("uncertain: ignore", "Nodule"): 1,
    }


@pytest.mark.parametrize("group", ["Nodule or Mass", "Mass or Nodule"])
def test_a_group_is_that_of_the_collection_or_made_of_its_parts(group: str):
    vindr = chosen(films_of({"Nodule/Mass": [1, 0, NAN]}), [group], VINDR_LIKE)
    np.testing.assert_array_equal(vindr.label[:, 0], [1, 0, NAN])
    nih = collection(("Mass", "Nodule"))
    made = chosen(films_of({"Mass": [1, 0, 0, NAN], "Nodule": [0, 0, 1, 0]}), [group, "Mass"], nih)
    np.testing.assert_array_equal(made.label, [[1, 1], [0, 0], [1, 0], [NAN, NAN]])
    parts = chosen(films_of({"Nodule/Mass": [1], "Edema": [1]}), ["Nodule", "Edema"], VINDR_LIKE)
    np.testing.assert_array_equal(parts.label, [[NAN, 1]])


def test_a_name_mapped_to_a_group_stands_beside_its_parts():
    films = films_of({"Mass": [1, 0, 0], "Nodule": [0, 1, 0], "Knoten": [0, 0, 1]})
    group, align = ["Nodule or Mass"], {"Knoten": "Mass or Nodule"}
    made = chosen(films, group, collection(("Mass", "Nodule", "Knoten")), align=align)
    assert made.label[:, 0].tolist() == [1, 1, 1]
    lone = chosen(
        films_of({"Mass": [1, 0], "Knoten": [0, 0]}), group, collection(("Mass",)), align=align
    )
    assert lone.label[:, 0].tolist() == [1, 0]


def test_chexperts_lung_lesion_is_wider_and_no_group(chexpert: Manifest):
    few = chexpert.take(np.arange(50))
    with pytest.raises(ValueError, match="Films of Ulm states none of Nodule or Mass: expected of"):
        chosen(few, ["Nodule or Mass"], CHEXPERT_LIKE)
    wider = {"Lung Lesion": "Nodule or Mass"}  # as a user may want
    made = chosen(few, ["Nodule or Mass"], CHEXPERT_LIKE, align=wider, no_finding_negates=False)
    column = few.label[:, CHEXPERT.index("Lung Lesion")]
    np.testing.assert_array_equal(made.label[:, 0], column)


def test_an_own_name_that_is_a_finding_is_kept_for_it(chexpert: Manifest):
    few = chexpert.take(np.arange(500))
    place = Source(source="chexpert")
    as_effusion = chosen(few, ["Effusion", "Edema"], CHEXPERT_LIKE)
    assert (as_effusion.label == 1).any(axis=0).all()
    for findings in (["Pleural Effusion", "Edema"], ["Pleural Effusion", "Effusion"]):
        made = chosen(few, findings, CHEXPERT_LIKE)
        refuse_unstated(place, findings=tuple(findings))
        np.testing.assert_array_equal(made.label[:, 0], as_effusion.label[:, 0])
    np.testing.assert_array_equal(made.label[:, 1], as_effusion.label[:, 0])
    assert set(made.uncertain["finding"]) == {"Pleural Effusion", "Effusion"}
    group = chosen(few, ["Pleural Effusion or Edema"], CHEXPERT_LIKE)
    assert ((group.label[:, 0] == 1) == (as_effusion.label == 1).any(axis=1)).all()


def test_the_protocols_mapping_of_an_own_name_is_the_only_one():
    films, align = films_of({"Pleural Effusion": [1], "Edema": [0]}), {"Pleural Effusion": ""}
    made = chosen(films, ["Pleural Effusion", "Edema"], collection(films.findings,
                  align={"Pleural Effusion": "Effusion"}), align=align)  # fmt: skip
    np.testing.assert_array_equal(made.label, [[NAN, 0]])


@pytest.mark.parametrize("source", COLLECTIONS)
def test_every_own_name_of_a_collection_may_be_a_finding(source: str):
    """But for OpenI's Fibrosis, which its mapping sets aside for Pulmonary Fibrosis."""
    own, place = COLLECTIONS[source], Source.model_validate({"source": source})
    about: dict[str, Any] = {"source": place, "collection": own}
    made = {name: own_names(own.findings, findings=(name,), **about)[name] for name in own.findings}
    assert [name for name, names in made.items() if name not in names] == (
        ["Fibrosis"] if source == "openi" else []
    )


def test_a_name_that_a_collection_sets_aside_stays_aside():
    own = COLLECTIONS["openi"]
    for align, expected in (({}, ["Pulmonary Fibrosis"]), ({"Pulmonary Fibrosis": ""}, [])):
        place = Source.model_validate({"source": "openi", "align": align})
        about: dict[str, Any] = {"source": place, "collection": own}
        made = own_names(own.findings, findings=("Fibrosis", "Mass"), **about)
        assert made == {"Fibrosis": expected, "Mass": ["Mass"]}


def test_a_part_that_the_protocol_maps_elsewhere_is_no_part_of_a_group():
    films = films_of({"Mass": [1, 0], "Nodule": [0, 1], "Knoten": [1, 0]})
    own = collection(("Mass", "Nodule", "Knoten"))
    align = {"Nodule": "", "Knoten": "Nodule"}
    made = chosen(films, ["Nodule or Mass"], own, align=align)
    assert steps(made)["made of Mass, Knoten", "Nodule or Mass"] == 1
    assert made.label[:, 0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"align": {"Edma": "Effusion"}},
            "data.align: the source has no 'Edma'; nearest is 'Edema",
        ),
        ({"align": {"Edema": "Efusion"}}, "data.align: 'Efusion' is not among .*is 'Effusion'"),
        ({"uncertain": {"Efusion": "ones"}, "source": "chexpert"}, "data.uncertain: 'Efusion' is"),
    ],
)
def test_strange_names_are_refused(choices: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        chosen(films_of({"Edema": [1]}), ["Effusion"], collection(("Edema", "Effusion")), **choices)


def test_the_policy_of_a_finding_is_its_own_the_others_or_none():
    source = Source(source="chexpert", uncertain={"Edema": "ones", "": "zeros"})
    assert [policy_of(source, name) for name in ("Edema", "Mass")] == ["ones", "zeros"]
    assert policy_of(Source(source="chexpert", uncertain={"Edema": "ones"}), "Mass") == "ignore"


def test_boxes_follow_their_names():
    boxes = pd.DataFrame(
        [("a", "Nodule/Mass", 0.1, 0.1, 0.2, 0.2), ("b", "Edema", 0.3, 0.3, 0.1, 0.1)],
        columns=list(BOX_COLUMNS),
    )
    films = films_of({"Nodule/Mass": [1, 0], "Edema": [0, 1]}, boxes=boxes)
    made = chosen(films, ["Nodule or Mass"], VINDR_LIKE)
    assert made.boxes[["image", "finding"]].to_numpy().tolist() == [["a", "Nodule or Mass"]]


def seen(view: list[Any]) -> Manifest:
    films = films_of({"Mass": [1] * len(view)})
    films = replace(films, facts=pd.DataFrame({"view": pd.Series(view, dtype=object)}))
    return replace(films, patient=np.arange(len(view)) // 2)


def test_views_are_taken_and_the_others_counted_by_view():
    films = seen(["PA", "LL", "ap", "", None, "LL", "PA"])
    kept = choose_films(films, source=Source(views=("pa", "AP")))
    assert kept.image.tolist() == ["a", "c", "g"]
    assert steps(kept) == {
        ("view not taken: LL", ""): 2,
        ("view not taken: unknown", ""): 2,
    }
    assert kept.origin == "invented, 4 films of other views left out"
    assert choose_films(films, source=Source()) is films


def test_views_of_chexpert(chexpert: Manifest):
    """AP 161,590, PA 29,420, LL 16, RL 1, none 32,387 (datasets.md, section 1)."""
    kept = choose_films(chexpert, source=Source(views=("AP", "PA")))
    assert len(kept) == 161_590 + 29_420
    assert steps(kept) == {
        ("view not taken: unknown", ""): 32_387,
        ("view not taken: LL", ""): 16,
        ("view not taken: RL", ""): 1,
    }
    single = choose_films(kept, source=Source(one_film_a_patient=True))
    first = pd.Series(kept.patient).groupby(kept.patient).head(1).index
    assert single.image.tolist() == kept.image[first].tolist()
    count = len(kept) - len(np.unique(kept.patient))
    assert steps(single)["not the patient's first film", ""] == count


@pytest.mark.parametrize("view", ["LATERAL", "unknown", ""])
def test_a_view_that_no_film_has_is_refused(view: str):
    with pytest.raises(ValueError, match=r"data.views: no film is .*: found PA 2, unknown 1"):
        choose_films(seen(["PA", "PA", ""]), source=Source(views=("PA", view)))
    with pytest.raises(ValueError, match=r"data.views: the source states no view of a film"):
        choose_films(films_of({"Mass": [1]}), source=Source(views=("PA",)))


def test_the_first_film_of_a_patient_is_that_of_a_view_that_is_taken():
    films = seen(["LL", "PA", "PA", "PA", "LL"])
    kept = choose_films(films, source=Source(views=("PA",), one_film_a_patient=True))
    assert kept.image.tolist() == ["b", "c"]
    unknown = replace(films, patient=np.full(5, -1))
    assert len(choose_films(unknown, source=Source(one_film_a_patient=True))) == 5


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom")
    list_phantom(folder, films=300, seed=0, label_noise=0.0)
    return folder


def test_nih_makes_a_group_of_its_two_findings_and_takes_names_and_views(phantom: Path):
    whole = read_nih_tables(phantom)
    either = whole.label[:, [FINDINGS.index("Nodule"), FINDINGS.index("Mass")]].max(axis=1)
    assert either.any()
    place = Source.model_validate(
        {"source": "nih", "root": str(phantom), "align": {"Hernia": "Hiatus"}}
    )
    findings = ("Nodule or Mass", "Hiatus", "Edema")
    films = SOURCES["nih"](place, findings=findings)
    np.testing.assert_array_equal(films.label[:, 0], either)
    np.testing.assert_array_equal(films.label[:, 1], whole.label[:, FINDINGS.index("Hernia")])
    assert len(films) == len(whole)
    drawn = SOURCES["phantom"](place.model_copy(update={"source": "phantom"}), findings=findings)
    np.testing.assert_array_equal(drawn.label, films.label)
    with pytest.raises(ValueError, match=r"finding 'Nodul' is unknown: .*nearest is 'Nodule'"):
        SOURCES["nih"](place, findings=("Nodul or Mass", "Hiatus"))
    views, _ = list_films(
        place.model_copy(update={"views": ("AP",), "one_film_a_patient": True}),
        findings=findings,
        split=lambda films, root: films.patient,
    )
    first = whole.facts["view"] == "AP"
    assert len(views) == len(np.unique(whole.patient[first]))
    left = views.reading.query("step == 'view not taken: PA'")["films"].sum()
    assert left == (whole.facts["view"] == "PA").sum()


TABLE = """image,patient,Mass,Knoten,Edema,view,ward,score,split,bed
a,1,1,0,-1,PA,north,0.5,train,007
b,1,0,-1,0,LL,,,train,012
c,2,-1.0,1,,PA,south,2,test,101
d,3,,0,-1,,west,3,Valid,7
"""


def csv(root: Path, text: str = TABLE, **choices: Any) -> Source:
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text(text)
    return Source.model_validate(
        {"source": "csv", "root": str(root), "labels": "labels.csv", **choices}
    )


def test_minus_one_in_a_table_is_uncertain_and_counted(tmp_path: Path, capsys):
    films = SOURCES["csv"](csv(tmp_path), findings=("Mass", "Edema"))
    np.testing.assert_array_equal(films.label, [[1, NAN], [0, 0], [NAN, NAN], [NAN, NAN]])
    assert films.is_uncertain.tolist() == [[False, True], [False] * 2, [True, False], [False, True]]
    assert "labels.csv: 3 labels are -1, uncertain: Mass 1, Edema 2" in capsys.readouterr().err
    assert steps(films)["uncertain: ignore", "Edema"] == 2
    ones = SOURCES["csv"](csv(tmp_path, uncertain="ones"), findings=("Mass", "Edema"))
    np.testing.assert_array_equal(ones.label, [[1, 1], [0, 0], [1, NAN], [NAN, 1]])
    with pytest.raises(ValueError, match=r"found '-2', expected 0, 1, -1 \(uncertain\) or nothing"):
        SOURCES["csv"](csv(tmp_path, TABLE.replace("-1.0", "-2")), findings=("Mass",))


def test_a_table_gives_groups_aligned_names_and_filled_cells(tmp_path: Path):
    place = csv(tmp_path, align={"Knoten": "Nodule"}, missing="negative")
    films = SOURCES["csv"](place, findings=("Nodule or Mass", "Nodule", "Edema"))
    expected = [[1, 0, NAN], [NAN, NAN, 0], [1, 1, 0], [0, 0, NAN]]
    np.testing.assert_array_equal(films.label, expected)
    assert stated_findings(place, findings=("Mass", "Nodule or Mass", "Hernia")) == (
        "Mass", "Nodule or Mass",
    )  # fmt: skip
    with pytest.raises(ValueError, match="no column 'Nodule'"):
        SOURCES["csv"](csv(tmp_path), findings=("Nodule or Mass",))
    with pytest.raises(ValueError, match=r"no column 'Knotten': .*nearest is 'Knoten'"):
        SOURCES["csv"](csv(tmp_path, align={"Knotten": "Mass"}), findings=("Mass",))
    with pytest.raises(ValueError, match=r"states none of Hernia: found image, "):
        stated_findings(csv(tmp_path), findings=("Hernia",))


def test_columns_of_a_table_are_facts_and_kept(tmp_path: Path):
    place = csv(tmp_path, columns=("ward", "score", "bed", "view"))
    films = SOURCES["csv"](place, findings=("Mass",))
    save_manifest(films, tmp_path)
    for facts in (films.facts, load_manifest(tmp_path).facts):
        assert facts["ward"].tolist() == ["north", "", "south", "west"]
        np.testing.assert_array_equal(facts["score"], [0.5, NAN, 2, 3])
        assert facts["bed"].tolist() == ["007", "012", "101", "7"]
        assert facts["view"].tolist() == ["PA", "LL", "PA", ""]
    assert load_manifest(tmp_path).is_uncertain.tolist() == films.is_uncertain.tolist()
    with pytest.raises(ValueError, match=r"no column 'wart': .*nearest is 'ward'"):
        SOURCES["csv"](csv(tmp_path, columns=("wart",)), findings=("Mass",))
    for name in ("Mass", "path", "image", "patient"):
        with pytest.raises(ValueError, match=rf"data.columns: '{name}' is no fact"):
            SOURCES["csv"](csv(tmp_path, columns=(name,)), findings=("Mass",))


def test_what_reading_leaves_out_is_counted_from_the_table_to_the_disk(tmp_path: Path):
    place = csv(tmp_path / "films", views=("PA",), allow_missing=True)
    (tmp_path / "list.txt").write_text("d\n")
    place = place.model_copy(update={"exclude": str(tmp_path / "list.txt")})
    cv2.imwrite(str(tmp_path / "films" / "a.png"), np.zeros((40, 40), np.uint8))
    films = read_films(place, findings=("Mass",), out=tmp_path / "out")
    assert films.image.tolist() == ["a"]
    assert list(steps(films).items()) == [
        (("in the label files", ""), 4),
        (("uncertain: ignore", "Mass"), 1),
        (("excluded by a list", ""), 1),
        (("view not taken: LL", ""), 1),
        (("not on disk", ""), 1),
    ]


@pytest.mark.parametrize(
    ("source", "choices"),
    [
        ("nih", {"readers": "any"}),
        ("csv", {"hospital": 2}),
        ("chexpert", {"columns": ["ward"]}),
        ("nih", {"uncertain": "ones"}),
        ("phantom", {"missing": "negative"}),
        ("csv", {"no_finding_negates": False}),
    ],
)
def test_a_key_that_means_nothing_to_a_source_is_refused(source: str, choices: dict[str, Any]):
    (key,) = choices
    message = f"{key} means nothing to '{source}'; it belongs to {', '.join(SOURCE_KEYS[key])}"
    with pytest.raises(ValueError, match=message):
        Source.model_validate({"source": source, **choices})
    Source.model_validate({"source": SOURCE_KEYS[key][0], **choices})


def test_findings_that_no_source_states_are_refused_before_films_are_read(tmp_path: Path):
    place = Source(source="nih", root=str(tmp_path))
    refuse_unstated(place, findings=("Nonsense",))  # a single source refuses it when it is read
    several = place.model_copy(update={"also": (csv(tmp_path),)})
    refuse_unstated(several, findings=("Mass", "Knoten", "Hernia"))
    message = r'findings: Fracture: stated by no source .nih, csv.: .* findings = \["Mass"\]'
    with pytest.raises(ValueError, match=message):
        refuse_unstated(several, findings=("Mass", "Fracture"))


def test_a_misspelt_finding_of_many_shows_the_nearest_and_the_page_of_all():
    about: dict[str, Any] = {"source": Source(source="padchest"), "collection": PADCHEST}
    with pytest.raises(ValueError, match="states none of") as refusal:
        own_names(PADCHEST.findings, findings=("Cardiomegly", "hiatal hernai"), **about)
    assert str(refusal.value) == (
        "PadChest states none of Cardiomegly, hiatal hernai; Cardiomegly: nearest are "
        "'Cardiomegaly', 'dextrocardia'; hiatal hernai: nearest are 'hiatal hernia', "
        "'mediastinal shift', 'Hernia'; "
        "docs/sources/padchest.md lists its 193 names: expected some of them, mapped by "
        "[data.align] where they are spelt otherwise"
    )
    place = Source(source="padchest")
    message = "nearest are 'Hernia', 'hiatal hernia', 'chest drain tube': leave them out"
    with pytest.raises(ValueError, match=message):
        refuse_unstated(place, findings=("Cardiomegaly", "Hernai"))


@pytest.mark.parametrize("name", [n for n, one in COLLECTIONS.items() if len(one.findings) > FEW])
def test_the_page_of_a_collection_of_many_names_lists_them_all(name: str):
    page = (DOCS / "sources" / f"{name}.md").read_text(encoding="utf-8")
    names = COLLECTIONS[name].findings
    assert page.endswith(f": {', '.join(f'`{one}`' for one in names)}.\n")


def test_a_loss_without_soft_labels_is_refused_where_labels_are_soft():
    choices = {
        "name": "soft",
        "network": [{"name": "resnet18"}],
        "training": {"loss": "two-way"},
        "data": {"source": "chexpert", "uncertain": {"Edema": "soft"}},
    }
    with pytest.raises(
        ValueError, match=r"training.loss 'two-way' of resnet18 knows no soft label"
    ):
        parse_protocol(choices, name="soft")
    beside = choices | {"data": {"source": "nih", "also": [choices["data"]]}}
    with pytest.raises(ValueError, match="knows no soft labels"):
        parse_protocol(beside, name="soft")
    readers = choices | {"data": {"source": "vindr-cxr", "readers": "soft"}}
    with pytest.raises(ValueError, match="knows no soft labels"):
        parse_protocol(readers, name="soft")
    parse_protocol(choices | {"training": {"loss": "bce"}}, name="soft")

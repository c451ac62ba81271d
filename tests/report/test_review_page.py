"""Pages to review films on: one file, offline, saving what `read_answers` reads."""

import base64
import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from browsers import CHROMIUM, needs_chromium, needs_node
from lucency.audit.review import (
    ANSWERS,
    draw_label_errors,
    draw_sample,
    label_ppv,
    read_answers,
)
from lucency.core.manifest import NO_FINDING, Manifest, empty_boxes
from lucency.data.images import locate_films, read_grey
from lucency.data.labels import read_labelled
from lucency.report.rendering import FOLDER
from lucency.report.review_page import CAPTION, CELL, HEAD, contact_sheet, review_page, write_review

FINDINGS = ("Mass", "Pleural_Thickening")
SCRIPT = (FOLDER / "review.js").read_text(encoding="utf-8")
PRESSED = """<script>
const cards = [...document.querySelectorAll("fieldset.card")];
document.getElementById("save").click();
const refused = document.getElementById("message").textContent;
cards[0].querySelector("input").focus();
for (const key of ["y", "N", "u"])
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
document.getElementById("reviewer").value = 'Ann, "B"';
cards[1].querySelector("input[type=checkbox]").click();
const left = document.getElementById("left").textContent;
URL.createObjectURL = (blob) => {
  blob.text().then((csv) => {
    const probe = document.createElement("pre");
    probe.id = "probe";
    probe.textContent = btoa(JSON.stringify({ refused, left, csv }));
    document.body.append(probe);
  });
  return "#";
};
document.getElementById("save").click();
</script></body>"""


def toys(films: int = 12) -> tuple[Manifest, dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    label = random.integers(0, 2, (films, 2)).astype(np.float32)
    image = np.array([f"{film:04d}.png" for film in range(films)])
    manifest = Manifest(
        findings=FINDINGS, image=image, patient=np.arange(films), label=label,
        facts=pd.DataFrame(index=range(films)), boxes=empty_boxes(), origin="toys",
    )  # fmt: skip
    return manifest, {name: np.full((40, 30), n, np.uint8) for n, name in enumerate(image)}


class Page(HTMLParser):
    """The elements of a page: name and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def named(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        mine = [found for name, found in self.elements if name == tag]
        return [found for found in mine if attributes.items() <= found.items()]


def test_a_page_has_a_card_for_each_film_and_needs_no_other_file():
    manifest, films = toys()
    sample = draw_sample(manifest, seed=0)
    text = review_page(sample, films=films, findings=FINDINGS)
    page = Page(text)
    cards = page.named("fieldset")
    assert [(card["data-sheet"], card["data-image"]) for card in cards] == list(
        zip(sample["sheet"], sample["image"], strict=True)
    )
    radios = page.named("input", type="radio")
    assert [radio["value"] for radio in radios] == ["yes", "no", "unsure"] * len(cards)
    assert len({radio["name"] for radio in radios}) == len(cards)
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    boxes = page.named("input", type="checkbox")
    expected = {"Mass": 1, "Pleural_Thickening": 1, NO_FINDING: 2}  # not the sheet's own
    assert len(boxes) == sample["sheet"].map(expected).sum()
    links = [link for _, found in page.elements for link in (found.get("src"), found.get("href"))]
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links if link)
    assert "http" not in text.split("</style>")[-1]


def test_a_page_shows_neither_other_labels_nor_patients():
    manifest, films = toys()
    sample = draw_sample(manifest, seed=0)
    other = Manifest(**{**vars(manifest), "patient": manifest.patient + 70})
    again = draw_sample(other, seed=0)
    pd.testing.assert_frame_equal(sample, again)  # numbers of patients do not show
    page = re.sub(r"<script>.*?</script>", "", review_page(sample, films=films, findings=FINDINGS))
    shown = re.sub(r'(data-image|src)="[^"]*"', "", page)
    assert not [name for name in sample["image"] if name in shown]
    assert shown.count("nothing seen") == (sample["sheet"] == NO_FINDING).sum()


def test_names_from_a_table_cannot_run_on_the_page():
    manifest, films = toys()
    sample = draw_sample(manifest, seed=0).assign(sheet='<script>"x"</script>')
    assert '<script>"x"' not in review_page(sample, films=films, findings=('"><b>', "Mass"))


def test_a_contact_sheet_shows_each_film_at_its_place_with_its_name():
    manifest, films = toys(30)
    wide = {name: np.full((600, 300), 77, np.uint8) for name in films}
    sample = draw_sample(manifest, seed=0)
    mine = sample[sample["sheet"] == "Mass"]
    rows = -(-len(mine) // 6)
    sheet = contact_sheet(sample, sheet="Mass", films=wide, manifest=manifest)
    assert sheet.shape == (2 * HEAD + rows * (CELL + CAPTION), 12 + 6 * (CELL + 12))
    for place in range(len(mine)):
        down, along = divmod(place, 6)
        top, left = HEAD + down * (CELL + CAPTION), 12 + along * (CELL + 12)
        cell = sheet[top : top + CELL, left : left + CELL]
        assert (cell[:, CELL // 4 : 3 * CELL // 4] == 77).all()  # whole, not stretched
        assert not cell[:, : CELL // 4].any()
        assert (sheet[top + CELL : top + CELL + 24, left : left + CELL] < 128).any()
    again = contact_sheet(sample, sheet="Mass", films=wide, manifest=manifest)
    np.testing.assert_array_equal(sheet, again)


def test_a_film_without_a_picture_is_named(tmp_path: Path):
    manifest, films = toys()
    sample = draw_sample(manifest, seed=0)
    del films[sample["image"][0]]
    with pytest.raises(ValueError, match=f"1 of the films drawn have no .*{sample['image'][0]}"):
        write_review(sample, films=films, manifest=manifest, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_films_are_sampled_shown_reviewed_and_counted(tmp_path: Path, shared: Path):
    every = read_labelled(shared / "nih" / "Data_Entry_2017_v2020.csv")
    located = locate_films(every, shared / "nih" / "images")
    path = located.facts["path"].to_numpy(dtype=str)
    there = np.flatnonzero(path != "")
    manifest, path = every.take(there), dict(zip(every.image[there], path[there], strict=True))
    sample = draw_sample(manifest, seed=0, films=1)
    films = {name: read_grey(Path(path[name])) for name in sample["image"].unique()}
    write_review(sample, films=films, manifest=manifest, folder=tmp_path)
    assert len(list(tmp_path.glob("sheet-*.png"))) == 15
    shown = cv2.imread(str(tmp_path / "sheet-01-Atelectasis.png"), cv2.IMREAD_GRAYSCALE)
    name = sample["image"][0]
    small = cv2.resize(films[name], (CELL, CELL), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(shown[HEAD : HEAD + CELL, 12 : 12 + CELL], small)
    form = pd.read_csv(tmp_path / "form.csv", keep_default_na=False)
    form.assign(reviewer="R", answer="yes").to_csv(tmp_path / "form.csv", index=False)
    verdicts = read_answers([tmp_path / "form.csv"], sample=sample)
    table = label_ppv(sample, verdicts)
    assert (table["right"] == 1).all()
    assert table["films"].sum() == pytest.approx(
        (manifest.label == 1).sum() + (manifest.label == 0).all(axis=1).sum()
    )


def test_sheets_of_label_errors_name_finding_and_direction():
    manifest, films = toys()
    image = manifest.image[manifest.label[:, 0] == 0]
    errors = pd.DataFrame({"finding": "Mass", "direction": "missing", "image": image})
    page = review_page(
        draw_label_errors(manifest, errors, seed=0), films=films, findings=manifest.findings
    )
    assert "<h2>Mass, missing " in page
    assert 'value="Mass"' not in page  # the finding is what the buttons ask for


def test_the_page_s_csv_has_the_columns_that_are_read():
    """Stands in for the run of the script where node is absent."""
    listed = re.search(r"const COLUMNS = (\[.*\]);", SCRIPT)
    assert listed is not None
    assert tuple(json.loads(listed[1])) == ANSWERS


@needs_node
def test_the_script_writes_what_python_reads(tmp_path: Path):
    manifest, _ = toys()
    sample = draw_sample(manifest, seed=0)
    sample.loc[0, "image"] = 'odd, "name"\n.png'
    rows = sample.loc[:, ["sheet", "image"]].assign(reviewer="Zoë, A", answer="no", also="Mass")
    code = f"{SCRIPT}\nprocess.stdout.write(csvOf({rows.to_json(orient='records')}));"
    file = tmp_path / "answers.csv"
    file.write_bytes(subprocess.run(["node", "-e", code], check=True, capture_output=True).stdout)
    read = read_answers([file], sample=sample)
    pd.testing.assert_frame_equal(read, rows.loc[:, list(ANSWERS)], check_dtype=False)


@pytest.mark.slow
@needs_chromium
def test_keys_answer_for_films_and_the_button_saves_in_a_browser(tmp_path: Path):
    manifest, films = toys()
    sample = draw_sample(manifest, seed=0)
    text = review_page(sample, films=films, findings=FINDINGS)
    page = tmp_path / "review.html"
    page.write_text(text.replace("</body>", PRESSED), encoding="utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    options = ["--headless", "--no-sandbox", "--virtual-time-budget=5000", "--dump-dom", profile]
    command = [CHROMIUM, *options, page.as_uri()]
    dump = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    probe = re.search(r'id="probe">([^<]+)<', dump)
    assert probe is not None
    found = json.loads(base64.b64decode(probe[1]))
    assert found["refused"] == "Please give your name or initials first."
    assert found["left"] == f"{len(sample) - 3} of {len(sample)} films left"
    file = tmp_path / "answers.csv"
    file.write_text(found["csv"])
    verdicts = read_answers([file], sample=sample)
    assert verdicts["answer"].tolist() == ["yes", "no", "unsure"]
    assert verdicts["image"].tolist() == sample["image"][:3].tolist()
    assert verdicts["reviewer"].unique().tolist() == ['Ann, "B"']
    assert verdicts["also"].tolist() == ["", FINDINGS[1], ""]

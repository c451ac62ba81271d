"""A run to view: the small demo with heat maps whose places are known, and one full of script."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from lucency.core.files import write_table, write_whole
from lucency.core.predictions import load_predictions
from lucency.core.stage import RECEIPT
from lucency.core.written import WRITTEN
from lucency.ensemble.fitted import FittedPredictor, Rule, save_predictor
from lucency.explain.heatmaps import Heatmaps, even_centres, save_heatmaps
from lucency.pipeline.film_predictors import open_predictor

CELLS = 8
HOT = (2, 5)  # the row and the column of the hottest cell
SCRIPT = "<img src=x onerror=window.ran=1><script>window.ran=1</script>"
HOSTILE_IMAGE = f"{SCRIPT}.png"


def known_maps(run: Path, network: str) -> Heatmaps:
    """Write heat maps of a network's test films, one hot cell each, and return them."""
    tests = load_predictions(run / "predictions" / network / "predictions.npz").of("test")
    grid = np.zeros((len(tests), len(tests.findings), CELLS, CELLS), dtype=np.float32)
    grid[:, :, HOT[0], HOT[1]] = 1
    maps = Heatmaps(
        method="grad-cam", findings=tests.findings, image=tests.image, patient=tests.patient,
        grid=grid, centres=even_centres((CELLS, CELLS)),
    )  # fmt: skip
    save_heatmaps(maps, run / "explanation" / "maps-0.npz")
    about = {"network": network, "remarks": [], "maps": 1}
    write_whole(run / "explanation" / "heatmaps.json", json.dumps(about))
    (run / "explanation" / WRITTEN).unlink(missing_ok=True)  # it states what was there before
    return maps


def copy_run(finished: Path, out: Path) -> Path:
    """Return a copy of the small demo's run."""
    return Path(shutil.copytree(finished / "runs" / "demo", out))


def fitted_views(run: Path, *, name: str, place: str) -> None:
    """Write a predictor that means three views of test_resnet, among a run's ensembles."""
    network = open_predictor(run, name="test_resnet", engine="torch")
    known = ("findings", "preparation", "split", "recalibration", "threshold")
    recipe = {"recipe": "gentle", "seed": 0, "views": 2}
    rule = Rule(name="views", members=("test_resnet",), about=recipe)
    views = FittedPredictor(
        name=name, kind="views", validation_auc=1.0, rule=rule,
        **{name: getattr(network, name) for name in known},
    )  # fmt: skip
    (run / "ensemble" / place).mkdir(parents=True)
    save_predictor(views, run / "ensemble" / place)
    board = run / "ensemble" / "leaderboard"
    board.mkdir(exist_ok=True)
    write_table(pd.DataFrame({"network": [name], "kind": ["views"]}), board / "leaderboard.csv")
    write_whole(board / RECEIPT, "{}")


def plant_script(run: Path) -> None:
    """Write script into every text of a run's first two films that a page shows."""
    file = run / "prepared" / "manifest.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    was = table["image"][0]
    table.loc[0, ["image", "sex", "view", "marker"]] = [HOSTILE_IMAGE, SCRIPT, SCRIPT, SCRIPT]
    table.loc[1, "patient"] = table.loc[0, "patient"]
    table["patient_id"] = table["patient"].where(table.index > 1, SCRIPT)
    write_table(table, file)
    boxes = pd.read_csv(run / "prepared" / "boxes.csv", dtype=str)
    box = dict(zip(boxes, (HOSTILE_IMAGE, SCRIPT, "0.1", "0.1", "0.2", "0.2"), strict=True))
    write_table(pd.concat([boxes, pd.DataFrame([box])]), run / "prepared" / "boxes.csv")
    about = run / "prepared" / "manifest.json"
    write_whole(about, about.read_text().replace('"Phantoms', f'"{SCRIPT}Phantoms'))
    split = run / "split" / "part.csv"
    part = pd.read_csv(split, dtype=str)
    write_table(part.replace({"image": {was: HOSTILE_IMAGE}}), split)
    for table in (file, split):
        table.with_name(WRITTEN).unlink()  # it states what the tables held before

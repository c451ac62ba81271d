"""What the service answers about films and its model: plain values for JSON, and the overlay.

Letters in shapes: gh and gw cells of a map's grid, h and w pixels, s pixels of a side of a film.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lucency.core.predictions import Predictions
from lucency.core.saved_files import fingerprint_file
from lucency.core.stage import fingerprint
from lucency.core.written import WRITTEN
from lucency.evaluation.conformal import sets_as_plain
from lucency.evaluation.unfamiliarity import FILE, FOLDER, UNLIKE, described_distance
from lucency.explain.heatmaps import Centres, Corners, enlarge
from lucency.explain.localization import BRIGHTEST, LEVELS, regions, scale

if TYPE_CHECKING:
    from lucency.pipeline.library import Explanation, Model

NOTICE = "For research only, not a medical device."
MODEL_ONNX = "model.onnx"
MODEL_FILES = (".json", ".safetensors", ".npz")
CARD = "MODEL_CARD.md"
LEVEL = LEVELS[1] / BRIGHTEST  # of a map's range: Wang et al., ChestX-ray8 (CVPR 2017)
SHOWN_SIDE = 512  # pixels of an overlay
OPAQUE = 0.7  # of the strongest place; evidence against the finding is transparent
Map = Float32[np.ndarray, "gh gw"]


class ModelAbout(NamedTuple):
    """What every answer says about the model."""

    name: str
    kind: str
    fingerprint: str


def about_model(model: Model) -> ModelAbout:
    """Return a model's name and kind, and the fingerprint of all files that it predicts with."""
    home, name = model.predictor.home, model.name
    places = [home.networks[name]] if name in home.networks else [home.fitted[name]]
    places += [] if name in home.networks else home.networks.values()
    inside = [one for place in places for one in (place, place / FOLDER)]
    files = [file for place in inside for file in sorted(place.glob("*.*"))]
    there = {str(file): fingerprint_file(file) for file in files if _matters(file)}
    return ModelAbout(name, model.kind, fingerprint({"files": sorted(there.values())}))


def _matters(file: Path) -> bool:
    """Say whether a file is one that is predicted with.

    ONNX files of a run are made of others; a note of what files held is about them.
    """
    if file.parent.name == FOLDER:
        return file.name == FILE
    return file.name != WRITTEN and (file.suffix in MODEL_FILES or file.name == MODEL_ONNX)


def described_model(model: Model, about: ModelAbout) -> dict[str, Any]:
    """Return what `GET /v1/model` answers."""
    card, watch = model.predictor.home.folder / CARD, model.predictor.watch
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
    return {
        "model": about._asdict(),
        "findings": list(model.findings),
        "thresholds": dict(zip(model.findings, model.threshold.tolist(), strict=True)),
        "sets": sets_as_plain(model.sets) if model.sets else None,
        "preparation": model.preparation.model_dump(mode="json"),
        **({"unfamiliarity": described_distance(watch.distance)} if watch else {}),
        "card": text,
        "notice": NOTICE,
    }


def predicted_findings(model: Model, predicted: Predictions) -> dict[str, dict[str, Any]]:
    """Return probability, threshold, presence and logit of every finding of one film.

    And `set` and `possible`, where the model has sets.
    """
    columns = zip(
        model.findings,
        predicted.probability[0].tolist(),
        model.threshold.tolist(),
        predicted.calibrated[0].tolist(),
        strict=True,
    )
    found = {
        finding: {
            "probability": probability,
            "threshold": threshold,
            "present": probability >= threshold,
            "logit": logit,
        }
        for finding, probability, threshold, logit in columns
    }
    if sets := model.sets:
        words, possible = (one(predicted.probability)[0] for one in (sets.words, sets.possible))
        for one, word, is_possible in zip(found.values(), words, possible, strict=True):
            one |= {"set": str(word), "possible": bool(is_possible)}
    return found


def film_unfamiliarity(model: Model, predicted: Predictions) -> dict[str, Any]:
    """Return how unlike the training films one film is; nothing where no distance is stored."""
    watch = model.predictor.watch
    if not watch:
        return {}
    refused = watch.distance.refuses(predicted.unfamiliarity)
    return {
        "unfamiliarity": float(predicted.unfamiliarity[0]),
        "note": UNLIKE if refused[0] else "",
    }


def explained_finding(explanation: Explanation) -> dict[str, Any]:
    """Return the map of one finding of one film, the centres of its cells, and boxes."""
    maps = explanation.maps
    cells = maps.grid[0, 0]
    corners = strong_boxes(cells, maps.centres)
    names = ("left", "top", "right", "bottom")
    return {
        "finding": maps.findings[0],
        "method": maps.method,
        "map": cells.tolist(),
        "rows": maps.centres.down.tolist(),
        "columns": maps.centres.across.tolist(),
        "boxes": [dict(zip(names, box, strict=True)) for box in corners.tolist()],
        "level": LEVEL,
    }


def strong_boxes(cells: Map, centres: Centres) -> Corners:
    """Return the box around each connected region above LEVEL of the map's own range.

    In shares of the film. A map that is the same everywhere has no boxes.
    """
    return regions(enlarge(scale(cells, top=1.0), centres) > LEVEL)


def overlay_png(explanation: Explanation) -> bytes:
    """Return the film with the map over it and its boxes, as a PNG of SHOWN_SIDE pixels a side."""
    cells, centres = explanation.maps.grid[0, 0], explanation.maps.centres
    film = np.asarray(explanation.prepared.pixels[0])
    shown = _overlaid(film, enlarge(cells, centres, frame=SHOWN_SIDE))
    for box in (strong_boxes(cells, centres) * SHOWN_SIDE).round().astype(int).tolist():
        for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 2)):
            cv2.rectangle(shown, (box[0], box[1]), (box[2], box[3]), colour, width)
    written, stream = PngInfo(), io.BytesIO()
    written.add_text("Comment", f"{explanation.maps.method}: {NOTICE}")
    Image.fromarray(shown).save(stream, format="PNG", pnginfo=written)
    return stream.getvalue()


def _overlaid(
    film: UInt8[np.ndarray, "s s"], large: Float32[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the film in colour with the map over it, the more opaque the stronger."""
    grey = cv2.resize(film, large.shape[::-1], interpolation=cv2.INTER_LINEAR)
    peak = float(large.max())
    opacity = np.clip(large / peak, 0, 1) * OPAQUE if peak > 0 else np.zeros_like(large)
    steps = scale(large, top=255.0).astype(np.uint8)
    glow = cv2.cvtColor(cv2.applyColorMap(steps, cv2.COLORMAP_MAGMA), cv2.COLOR_BGR2RGB)
    mixed = grey[:, :, None] * (1 - opacity[:, :, None]) + glow * opacity[:, :, None]
    return mixed.round().astype(np.uint8)

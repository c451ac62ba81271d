"""Predict films by an exported folder with onnxruntime, OpenCV and numpy, without Lucency.

python predict_exported.py FOLDER FILM.png ... prints a row a film, a column a finding.
For research only, not a medical device.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

DENOISERS = {
    "median": lambda film: cv2.medianBlur(film, 3),
    "gaussian": lambda film: cv2.GaussianBlur(film, (3, 3), 0),
    "bilateral": lambda film: cv2.bilateralFilter(film, 5, 50, 50),
}


def enhance(film, preparation):
    """Return a grey film after CLAHE, brightness and denoising."""
    if preparation["order"] != "no-clahe":
        tiles = (preparation["clahe_tiles"], preparation["clahe_tiles"])
        film = cv2.createCLAHE(preparation["clahe_clip"], tiles).apply(film)
    if preparation["brightness"]:
        film = cv2.add(film, np.array([float(preparation["brightness"])]))
    chain = preparation["denoise"]
    for name in [chain] if isinstance(chain, str) else chain:
        film = DENOISERS[name](film) if name != "none" else film
    return film


def resize(film, preparation):
    """Return a film as a square: averaged where it shrinks, linear where it grows."""
    if preparation["interpolation"] != "area":
        raise SystemExit("this example resizes by area alone; Pillow resizes the other way")
    side = preparation["size"]
    way = cv2.INTER_AREA if min(film.shape) >= side else cv2.INTER_LINEAR
    return cv2.resize(film, (side, side), interpolation=way)


def prepare(file, preparation):
    """Return the film of a file, a grey picture of eight bits, as the model sees it."""
    film = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if film is None or film.dtype != np.uint8 or film.ndim != 2:
        raise SystemExit(f"{file}: expected a grey picture of eight bits")
    if preparation["order"] == "resize-first":
        return enhance(resize(film, preparation), preparation)
    return resize(enhance(film, preparation), preparation)


def probabilities(logit, recalibration):
    """Return sigmoid(slope * curve(logit) + offset); without knots the curve is the logit."""
    bent = logit.astype(np.float64)
    knots = np.array(recalibration["knot"], dtype=np.float64).reshape(-1, 3)
    for finding in np.unique(knots[:, 0]).astype(int):  # knots: finding, logit, curve there
        at, to = knots[knots[:, 0] == finding, 1:].T
        bent[:, finding] = np.interp(bent[:, finding], at, to)
    line = np.array(recalibration["slope"]) * bent + np.array(recalibration["offset"])
    return 1 / (1 + np.exp(-line))


def predict(folder, files):
    """Return the findings, the probability of each for every film, and which films have it."""
    session = onnxruntime.InferenceSession(Path(folder) / "model.onnx")
    held = session.get_modelmeta().custom_metadata_map  # model.json holds the same
    films = np.stack([prepare(file, json.loads(held["preparation"])) for file in files])
    (logit,) = session.run(["logit"], {session.get_inputs()[0].name: films})
    probability = probabilities(logit, json.loads(held["recalibration"]))
    return json.loads(held["findings"]), probability, probability >= json.loads(held["threshold"])


if __name__ == "__main__":
    findings, probability, called = predict(sys.argv[1], sys.argv[2:])
    print("film", *findings, "called", sep=",")
    for file, row, present in zip(sys.argv[2:], probability, called, strict=True):
        names = "|".join(name for name, has in zip(findings, present, strict=True) if has)
        print(file, *(f"{one:.4f}" for one in row), names, sep=",")

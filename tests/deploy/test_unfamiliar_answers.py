"""The service's answers on films unlike the training films, and those of models without."""

import jsonschema
import numpy as np
import pytest
from starlette.testclient import TestClient

from lucency.deploy.film_answers import about_model, described_model
from lucency.deploy.guard import ServiceSettings
from lucency.deploy.service import create_app
from lucency.evaluation.unfamiliarity import (
    FOLDER,
    UNLIKE,
    fit_unfamiliarity,
    know_films,
    save_unfamiliarity,
)
from lucency.pipeline.library import Model, load
from served import SIDE, TOKEN, film_file, film_pixels, served_model

HELD = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    """One network twice: without a distance, and with one fitted to films of smooth shapes."""
    place = tmp_path_factory.mktemp("models")
    plain = served_model(place / "plain")
    films = plain.predict([film_pixels(seed) for seed in range(90)])
    fitted = fit_unfamiliarity(
        know_films(films.feature[:50], neighbours=5, seed=0),
        logit=films.logit[50:],
        feature=films.feature[50:],
        patient=np.arange(40),
        score="mahalanobis",
        refused=0.05,
        training=50,
    )
    served_model(place / "watched")
    (place / "watched" / FOLDER).mkdir()
    save_unfamiliarity(fitted, place / "watched" / FOLDER)
    return plain, load(place / "watched", engine="torch")


def _answer(model: Model, *films: bytes) -> tuple[dict, dict, dict]:
    """The service's answers on films and on its model, and its description."""
    settings = ServiceSettings(token=TOKEN, decoders=1, films=8)
    app = create_app(model, settings=settings, log=lambda _: None)
    sent = [("film", (f"{place}.png", film)) for place, film in enumerate(films)]
    with TestClient(app, base_url="http://127.0.0.1:8765", headers=HELD) as client:
        routes = ("/v1/model", "/openapi.json")
        about, description = (client.get(route).json() for route in routes)
        return client.post("/v1/predict", files=sent).json(), about, description


def test_an_answer_says_what_is_not_like_the_training_films(models: tuple[Model, Model]):
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    file = cv2.imencode(".png", noise)[1].tobytes()
    answer, about, description = _answer(models[1], film_file(200), file)
    schema = {"$ref": "#/components/schemas/Prediction", "components": description["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer)
    ordinary, strange = answer["films"]
    assert (strange["note"], ordinary["note"]) == (UNLIKE, "")
    assert 0 <= ordinary["unfamiliarity"] < 0.95 <= strange["unfamiliarity"] <= 1
    assert about["unfamiliarity"]["score"] == "mahalanobis"
    assert about["unfamiliarity"]["patients"] == 40


def test_a_model_without_a_distance_answers_as_before(models: tuple[Model, Model]):
    plain, watched = models
    about = about_model(plain)
    assert "unfamiliarity" not in described_model(plain, about)
    assert np.isnan(plain.predict(film_pixels(1)).unfamiliarity)
    answer = _answer(plain, film_file(200))[0]
    assert {*answer["films"][0]} == {"film", "findings", "quality"}
    assert about.fingerprint != about_model(watched).fingerprint

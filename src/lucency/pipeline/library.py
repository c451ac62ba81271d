"""The library: what notebooks call, in thin functions with defaults for everything but the data.

Letters in shapes: n films, k findings, h and w pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float64, Shaped

from lucency.config.protocol import Protocol, read_protocol
from lucency.config.sections import DRAWS
from lucency.core.manifest import (
    SOFT_COLUMNS,
    UNCERTAIN_COLUMNS,
    Manifest,
    Preparation,
    Prepared,
    counted,
    empty_boxes,
    empty_table,
    unlabelled,
)
from lucency.core.plan import only_tests
from lucency.core.predictions import Predictions, load_predictions
from lucency.core.progress import say
from lucency.data.csv_tables import clean_id
from lucency.data.film_files import film_exists, why_no_film
from lucency.data.images import films_below
from lucency.data.labels import is_unknown, refuse_alike
from lucency.evaluation.conformal import ConformalSets
from lucency.evaluation.evaluate import evaluate as evaluate_predictions
from lucency.evaluation.external import LEAST, MOST
from lucency.evaluation.external_validation import ExternalValidation
from lucency.evaluation.summary import Evaluation
from lucency.evaluation.unfamiliar_results import UnfamiliarResults
from lucency.explain.class_activation import METHOD as CAM
from lucency.explain.class_activation import class_activation_maps, head_of
from lucency.explain.heatmaps import Heatmaps, one_cell_remarks
from lucency.pipeline import stages
from lucency.pipeline.film_inference import read_films
from lucency.pipeline.film_predictors import FilmPredictor, best_of, open_predictor
from lucency.pipeline.run import Run, open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lucency.models.classifier import Classifier
    from lucency.models.networks import FilmNetwork

GRAD_CAM = "grad-cam"
Place = str | Path
Film = Place | Prepared | np.ndarray


def prepare(films: Place | Sequence[Place], *, size: int = 224, **choices: Any) -> Prepared:
    """Return films prepared as a network sees them: square, with CLAHE, uint8.

    `films` is a file (PNG, JPEG or DICOM), a folder, an archive, a URL of a store, or several;
    `choices` are those of `Preparation`, by default CLAHE with clip limit 3 and 10 x 10 tiles.
    Files that cannot be read are listed in `rejected`. Raises ValueError where none can be read.
    """
    places = [films] if isinstance(films, str | Path) else list(films)
    files = films_below([Path(place) for place in places])
    return _prepared(files, findings=(), preparation=Preparation(size=size, **choices))


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A network, or what was fitted beside networks, that predicts films; `load` returns it."""

    predictor: FilmPredictor

    @property
    def name(self) -> str:
        """What it is called in its run."""
        return self.predictor.name

    @property
    def kind(self) -> str:
        """What it is: a network, views, snapshots, an ensemble, a learner or neighbours."""
        return self.predictor.kind

    @property
    def findings(self) -> tuple[str, ...]:
        """The findings that it predicts, in the order of its outputs."""
        return self.predictor.findings

    @property
    def threshold(self) -> Float64[np.ndarray, " k"]:
        """The recalibrated probability from which a film has a finding, of every finding."""
        return self.predictor.threshold

    @property
    def sets(self) -> ConformalSets | None:
        """The bounds of its sets on recalibrated probabilities; None of before there were any."""
        return self.predictor.sets

    @property
    def preparation(self) -> Preparation:
        """How the training films were prepared, and every film that is predicted."""
        return self.predictor.preparation

    @cached_property
    def classifier(self) -> Classifier:
        """The network that is explained, on torch."""
        from lucency.models.classifier import load_classifier

        return load_classifier(self.predictor.home.networks[self.explained])

    def __repr__(self) -> str:
        count, size = counted(len(self.findings), "finding"), self.preparation.size
        return f"<Model {self.name} ({self.kind}): {count}, films of {size} x {size} pixels>"

    def predict(self, films: Film | Sequence[Film]) -> Predictions:
        """Return the predictions of films: files, folders, `prepare`d films, grey arrays (uint8).

        Files and arrays are prepared as the training films were, and so are films that were
        prepared otherwise and whose file is known. A file that cannot be read is left out, and a
        line says so. Raises ValueError where none can be read.
        """
        return self.predictor.predict(self._films(films))

    def explain(
        self,
        films: Film | Sequence[Film],
        *,
        method: str = "",
        findings: Sequence[str] | None = None,
    ) -> Explanation:
        """Return heat maps of films, by default of every finding; films are as for `predict`.

        `method` is by default "cam" where the network's ONNX file has such maps, which needs no
        torch, else "grad-cam". Maps of an ensemble or learner are those of the best network of its
        run. A line says where maps have one cell, which distinguishes no places.
        """
        prepared = self._films(films)
        names = self.findings if findings is None else tuple(findings)
        maps = self._maps(prepared, method, names)
        for remark in one_cell_remarks([maps]):
            say(f"{self.explained}, {remark}")
        return Explanation(maps=maps, prepared=prepared)

    @cached_property
    def explained(self) -> str:
        """The network whose heat maps are shown: of what is no network, the best of its run."""
        home, name = self.predictor.home, self.predictor.name
        if name in home.networks:
            return name
        best = best_of(home)
        say(f"{name} is no network: heat maps are those of {best}, the best one of the run")
        return best

    def _maps(self, prepared: Prepared, method: str, findings: tuple[str, ...]) -> Heatmaps:
        if method in ("", CAM):
            onnx = self.predictor.home.network(self.explained).onnx
            head = head_of(onnx.metadata) if onnx else None
            if onnx and head:
                return class_activation_maps(onnx, head=head, prepared=prepared, findings=findings)
        from lucency.explain.methods.registry import explain

        return explain(
            self.classifier,
            prepared=prepared,
            plan=only_tests(prepared.manifest.label),
            method=method or GRAD_CAM,
            findings=findings,
        )

    def _films(self, films: Film | Sequence[Film]) -> Prepared:
        alone = isinstance(films, str | Path | Prepared | np.ndarray)
        several = [films] if alone else list(films)
        if not several:
            raise ValueError("films: found none, expected one or more")
        parts = [self._film(film, number) for number, film in enumerate(several, start=1)]
        manifest = Manifest(
            findings=self.findings,
            image=np.concatenate([part.manifest.image for part in parts]),
            patient=np.concatenate([part.manifest.patient for part in parts]),
            label=np.concatenate([part.manifest.label for part in parts]),
            facts=pd.concat([part.manifest.facts for part in parts], ignore_index=True),
            boxes=empty_boxes(),
            origin="; ".join(part.manifest.origin for part in parts),
        )
        return Prepared(
            manifest=manifest,
            preparation=self.preparation,
            pixels=np.concatenate([part.pixels for part in parts]),
            rejected=pd.concat([part.rejected for part in parts], ignore_index=True),
        )

    def _film(self, film: Film, number: int) -> Prepared:
        if isinstance(film, np.ndarray):
            return self._array(film, number)
        about = {"findings": self.findings, "preparation": self.preparation}
        if not isinstance(film, Prepared):
            if not str(film):
                raise ValueError("films: found an empty name, expected a file or a folder")
            return _prepared(films_below([Path(film)]), **about)
        if film.preparation == self.preparation:
            return replace(film, manifest=_labelled(film.manifest, self.findings))
        facts = film.manifest.facts
        paths = facts["path"].tolist() if "path" in facts else []
        if not paths or not all(film_exists(path) for path in paths):
            raise ValueError(
                f"films: found {film.preparation!r}, expected {self.preparation!r}, as the network "
                "was trained: prepare them so, or name their files"
            )
        say(f"Prepared again as the training films of {self.name}: {', '.join(paths[:3])}")
        return _prepared([Path(path) for path in paths], **about)

    def _array(self, film: Shaped[np.ndarray, ...], number: int) -> Prepared:
        from lucency.data.preprocess import prepare_film

        if film.ndim != 2 or film.dtype != np.uint8:
            raise ValueError(
                f"films: found an array of {film.dtype} with shape {film.shape}; expected a grey "
                "film of uint8 with height and width"
            )
        shown, name = prepare_film(film, preparation=self.preparation), f"array {number}"
        about = {"findings": self.findings, "preparation": self.preparation}
        return unlabelled([name], shown[None], **about)


def load(folder: Place, *, model: str = "", engine: str = "") -> Model:
    """Return what predicts films: of a run's folder the best on validation films, or `model`.

    `folder` may also be that of one network. Networks run on ONNX Runtime, on torch beside an
    NVIDIA GPU, or on the `engine` that is named ("onnx", "torch"). Raises ValueError where there
    is nothing that predicts, and for an unknown name.
    """
    return Model(predictor=open_predictor(Path(folder), name=model, engine=engine))


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """Heat maps of films, and the films themselves as the network saw them."""

    maps: Heatmaps
    prepared: Prepared

    def __repr__(self) -> str:
        films, findings = map(counted, self.maps.grid.shape[:2], ("film", "finding"))
        return f"<Explanation {self.maps.method}: {films}, {findings}>"

    def plot(self, film: int | str = 0, *, findings: Sequence[str] | None = None) -> Figure:
        """Return a matplotlib figure of one film, by number or name, beside its heat maps.

        `findings` are by default all of the explanation. Raises ValueError for a film or a finding
        that is not there.
        """
        from lucency.report.heatmap_figures import overlay_figure

        names = self.maps.image.tolist()
        row = names.index(film) if film in names else film
        if not isinstance(row, int) or not 0 <= row < len(names):
            raise ValueError(
                f"film: found {film!r}, expected a number below {len(names)}, or a name"
            )
        chosen = self.maps.findings if findings is None else tuple(findings)
        if lost := [name for name in chosen if name not in self.maps.findings]:
            known = ", ".join(self.maps.findings)
            raise ValueError(f"findings: found {lost[0]!r}, expected some of {known}")
        grids = dict(zip(self.maps.findings, self.maps.grid[row], strict=True))
        cells = {name: (grids[name], self.maps.centres) for name in chosen}
        return overlay_figure(self.prepared.pixels[row], maps=cells, corners=np.empty((0, 4)))


def evaluate(
    y: Any,
    prob: Any,
    *,
    patient: Sequence[Any] | np.ndarray | pd.Series | None = None,
    findings: Sequence[str] | None = None,
    threshold: float | Sequence[float] = 0.5,
    resamples: int = DRAWS["resamples"],
    seed: int = DRAWS["seed"],
) -> pd.DataFrame:
    """Return every metric of every finding with its 95 % confidence interval, a row each.

    `y` holds 1, 0 and NaN (not stated), `prob` probabilities from 0 to 1: arrays or frames of one
    row a film and one column a finding, or one-dimensional for one finding. Films of one patient
    are resampled together; without `patient` every film is taken as a patient of its own. Names of
    findings come from a frame's columns where `findings` is None. Raises ValueError, which names
    the argument, for shapes and numbers that do not fit.
    """
    _check_draws(resamples, seed)
    predictions = _external(y, prob, patient=patient, findings=findings)
    limit, count = np.asarray(threshold, dtype=np.float64), len(predictions.findings)
    if limit.shape not in ((), (count,)) or np.isnan(limit).any():
        raise ValueError(
            f"threshold: found {threshold}, expected one number, or {count}: one a finding"
        )
    table = evaluate_predictions(
        predictions, threshold=np.full(count, limit), resamples=resamples, seed=seed
    )
    return table.drop(columns="network")


def compare(
    several: Mapping[str, Predictions | Place],
    *,
    resamples: int = DRAWS["resamples"],
    seed: int = DRAWS["seed"],
) -> pd.DataFrame:
    """Return paired differences of networks' predictions of the same films, with tests.

    `several` maps names to predictions or to predictions.npz files; test films count where there
    are several parts. Raises ValueError for fewer than two, and for other films or labels.
    """
    from lucency.evaluation.compare import compare as compare_predictions

    _check_draws(resamples, seed)
    if len(several) < 2:
        raise ValueError(f"several: found {len(several)} predictions, expected two or more")
    tests = [replace(_tests(one), network=name) for name, one in several.items()]
    return compare_predictions(tests, resamples=resamples, seed=seed)


def check(predictions: Predictions | Place) -> pd.DataFrame:
    """Return the issues that predictions reveal (constant, inverted, swapped), a row each.

    Checks that need labels find nothing where labels are not stated.
    """
    from lucency.audit.checks.issue import issue_table, unverified
    from lucency.audit.checks.prediction_checks import check_predictions

    return issue_table(check_predictions(unverified(_tests(predictions))))


def create_network(
    name: str,
    *,
    findings: int | Sequence[str] = 14,
    weights: str = "random",
    match: str = "name",
    provenance: str = "a file of weights",
    dropout: float = 0.0,
) -> FilmNetwork:
    """Return a network, a torch module that takes uint8 films `b h w` and gives logits `b k`.

    `weights` is "random", "timm" (published ones, from the model hub) or a file, whose tensors are
    paired by `match` as in a protocol. Raises ValueError for an unknown name, the nearest named,
    and for weights that do not fit or cannot be fetched.
    """
    from lucency.config.sections import Network
    from lucency.models.networks import build_chosen
    from lucency.models.weights import initialise

    count = findings if isinstance(findings, int) else len(findings)
    if count < 1:
        raise ValueError(f"findings: found {count}, expected one or more")
    about = {"name": name, "weights": weights, "match": match, "provenance": provenance}
    choice = Network.model_validate(about)
    network = build_chosen(choice, findings=count, dropout=dropout)
    initialise(network.body, choice=choice, root=Path())
    return network


def list_networks(pattern: str = "*") -> list[str]:
    """Return the names of networks: those of the published studies first, then timm's.

    `pattern` chooses names, as in "densenet*".
    """
    from fnmatch import fnmatch

    import timm

    from lucency.models.networks import NETWORKS

    own = [name for name in NETWORKS if fnmatch(name, pattern)]
    return [*own, *(name for name in timm.list_models(pattern) if name not in NETWORKS)]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunResult:
    """A finished run: its protocol, predictions, evaluation and page."""

    run: Run

    @property
    def protocol(self) -> Protocol:
        """The experiment."""
        return self.run.protocol

    @property
    def out(self) -> Path:
        """The run's folder."""
        return self.run.out

    @property
    def predictions(self) -> dict[str, Predictions]:
        """The predictions of validation and test films by network."""
        return {one.network: one for one in stages.predictions(self.run)}

    @property
    def evaluation(self) -> Evaluation:
        """Metrics, comparison, ranking and the other tables, of test films."""
        return stages.evaluation(self.run)

    @property
    def report(self) -> Path:
        """The page."""
        return self.run.out / "report" / "report.html"

    @property
    def external(self) -> dict[str, ExternalValidation]:
        """The external tests of the protocol by name: scores beside those of own test films."""
        tests = self.protocol.external
        return {one.name: stages.external_test(self.run, one.name) for one in tests}

    @property
    def unfamiliar(self) -> UnfamiliarResults:
        """How well films unlike the training films are found; empty where no distance is kept."""
        return stages.unfamiliar(self.run)

    def validate(
        self, source: str, root: Place = "", *, name: str = "", **keys: Any
    ) -> ExternalValidation:
        """Return what the networks are worth on films of another source, kept in the run.

        `source`, `root` and `keys` are those of `[[external]]`; `name` is by default the source's.
        """
        from lucency.config.protocol import parse_external
        from lucency.pipeline.added_tests import add_external_test

        about = {"source": source, "root": str(root), "name": name or source, **keys}
        return add_external_test(self.out, parse_external(about))

    def load(self, model: str = "") -> Model:
        """Return what predicts films, by default the best on validation films."""
        return load(self.run.out, model=model)

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.protocol.network)
        return f"<RunResult {self.protocol.name} in {self.out}: {names}>"

    def _repr_html_(self) -> str:
        return self.evaluation.ranking.to_html(index=False)


def run(
    protocol: Place | Protocol, out: Place, *, changes: Sequence[str] = (), workers: int = 0
) -> RunResult:
    """Run an experiment into the folder `out`, skip what is done, and return its results.

    `protocol` is a file or a value, `changes` are `key=value`, as `--set` takes them. Raises
    ValueError for a protocol with variants: those are an ablation study.
    """
    if isinstance(protocol, Protocol):
        if changes:
            raise ValueError("changes: expected none beside a Protocol: change it before")
        chosen = protocol
    else:
        chosen = read_protocol(protocol, changes=tuple(changes))
    if chosen.variant:
        raise ValueError(f"protocol: {chosen.name} has variants: use lucency study ablation")
    opened = open_run(chosen, out=Path(out), workers=workers)
    stages.report(opened)
    return RunResult(run=opened)


def _prepared(
    files: list[Path], *, findings: tuple[str, ...], preparation: Preparation
) -> Prepared:
    if lost := [file for file in files if not (film_exists(file) or file.exists())]:
        raise ValueError(
            f"films: {lost[0]}: {why_no_film(lost[0])}; expected films or folders of them"
        )
    return read_films(files, findings=findings, preparation=preparation)


def _labelled(manifest: Manifest, findings: tuple[str, ...]) -> Manifest:
    """Return the films with labels of these findings, not stated where they have none."""
    table = pd.DataFrame(manifest.label, columns=list(manifest.findings))
    label = table.reindex(columns=list(findings)).to_numpy(dtype=np.float32)
    return replace(
        manifest,
        findings=findings,
        label=label,
        boxes=empty_boxes(),
        uncertain=empty_table(UNCERTAIN_COLUMNS),
        soft=empty_table(SOFT_COLUMNS),
    )


def _owners(patient: np.ndarray) -> np.ndarray:
    """Return a number for each film's patient, -1 where it is missing."""
    cleaned = pd.Series([clean_id(p) if isinstance(p, str) else p for p in patient.tolist()])
    unknown = [isinstance(p, str) and is_unknown(p) for p in cleaned.tolist()]
    cleaned = cleaned.mask(np.array(unknown, dtype=bool))
    refuse_alike([str(one) for one in cleaned.dropna().unique()], where="patient")
    return pd.factorize(cleaned)[0]


def _tests(predictions: Predictions | Place) -> Predictions:
    """Return predictions, of several parts the test films."""
    if isinstance(predictions, str | Path):
        predictions = load_predictions(predictions)
    return predictions.of("test") if len(set(predictions.part.tolist())) > 1 else predictions


def _external(
    y: Any,
    prob: Any,
    *,
    patient: Sequence[Any] | np.ndarray | pd.Series | None,
    findings: Sequence[str] | None,
) -> Predictions:
    """Return arrays as predictions; ValueError names the argument that does not fit."""
    from scipy.special import logit

    y = _in_order_of(prob, y, "y")
    if isinstance(patient, pd.Series):
        patient = _in_order_of(prob, patient, "patient")
    label, score = _matrix(y, "y"), _matrix(prob, "prob")
    _check_numbers(label, score)
    films, count = label.shape
    if findings is None:
        frame = next((one for one in (prob, y) if isinstance(one, pd.DataFrame)), None)
        numbered = (f"finding {place}" for place in range(1, count + 1))
        findings = [*numbered] if frame is None else [str(name) for name in frame.columns]
    names = tuple(findings)
    owner = np.arange(films) if patient is None else _owners(np.asarray(patient))
    if len(names) != count:
        raise ValueError(f"findings: found {len(names)}, expected {count}, one a column of y")
    if len(owner) != films:
        raise ValueError(f"patient: found {len(owner)}, expected {films}, one a row of y")
    if missing := int((owner < 0).sum()):
        raise ValueError(f"patient: {missing} of {films} are missing, expected one for every film")
    return Predictions(
        network="",
        split="unknown",
        findings=names,
        image=np.array([f"film {row}" for row in range(films)]),
        patient=owner.astype(np.int64),
        part=np.full(films, "test"),
        label=label.astype(np.float32),
        logit=logit(np.clip(score, LEAST, MOST)),
        feature=np.empty((films, 0), dtype=np.float32),
    )


def _in_order_of(prob: Any, values: Any, argument: str) -> Any:
    """Return a frame or series in the order of rows and columns of `prob`, if that is a frame.

    Raises ValueError where the names differ.
    """
    if not (isinstance(prob, pd.DataFrame) and isinstance(values, pd.DataFrame | pd.Series)):
        return values
    axes = ["index"] if isinstance(values, pd.Series) else ["index", "columns"]
    for axis in axes:
        mine, theirs = getattr(values, axis), getattr(prob, axis)
        if mine.equals(theirs):
            continue
        if mine.has_duplicates or len(mine) != len(theirs) or not mine.isin(theirs).all():
            raise ValueError(
                f"{argument}: its {axis} differs from that of prob; expected the same names, or "
                "arrays (.to_numpy()) in the same order"
            )
        values = values.loc[theirs] if axis == "index" else values.loc[:, theirs]
    return values


def _check_numbers(label: Float64[np.ndarray, "n k"], score: Float64[np.ndarray, "m j"]) -> None:
    """Raise ValueError unless labels are 1, 0 or NaN, and scores are probabilities beside them."""
    if score.shape != label.shape:
        raise ValueError(f"prob: found shape {score.shape}, expected that of y, {label.shape}")
    if not np.isin(label[~np.isnan(label)], (0, 1)).all():
        raise ValueError("y: found other numbers, expected 1, 0 or NaN (not stated)")
    if not ((score >= 0) & (score <= 1)).all():
        raise ValueError("prob: found numbers outside 0 to 1 or NaN, expected probabilities")


def _check_draws(resamples: int, seed: int) -> None:
    """Raise ValueError for a number of resamples or a seed that cannot be."""
    if resamples < 1:
        raise ValueError(f"resamples: found {resamples}, expected 1 or more")
    if seed < 0:
        raise ValueError(f"seed: found {seed}, expected 0 or more")


def _matrix(values: Any, argument: str) -> Float64[np.ndarray, "n k"]:
    """Return values as one row a film and one column a finding."""
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{argument}: found no numbers, expected an array or a frame") from None
    if matrix.ndim not in (1, 2) or not matrix.size:
        raise ValueError(
            f"{argument}: found shape {matrix.shape}, expected one row a film, one column a finding"
        )
    return matrix[:, None] if matrix.ndim == 1 else matrix

"""Everything of a run that predicts films: networks, and what was fitted beside them.

Networks run on ONNX Runtime, by a file that is made of their weights when it is first needed;
beside an NVIDIA GPU, and where it is requested, on torch. What several predictors need of the same
films is computed once.

Letters in shapes: n films, k findings, d feature dimensions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8

from lucency.config.sections import AND, FROZEN, TEXTURE
from lucency.core.files import WAIT_SECONDS, write_whole
from lucency.core.locks import LOCK, held_lock
from lucency.core.manifest import (
    Manifest,
    Preparation,
    Prepared,
    load_manifest,
    nearest,
    read_table,
    unlabelled,
)
from lucency.core.memory import thread_pool
from lucency.core.parallel import usable_cores
from lucency.core.plan import only_tests
from lucency.core.predictions import Predictions, Recalibration
from lucency.core.progress import say
from lucency.core.saved_files import SavedFields, fingerprint_file, read_fields
from lucency.core.stage import RECEIPT, fingerprint
from lucency.core.tables import film_tail, fitting_films
from lucency.ensemble.fitted import DATA, FittedPredictor, folder_name, load_predictor
from lucency.ensemble.retrieval import NOBODY
from lucency.evaluation.conformal import ConformalSets
from lucency.evaluation.unfamiliarity import FILE, FOLDER, Unfamiliarity, load_unfamiliarity
from lucency.explain.class_activation import head_metadata
from lucency.explain.heatmaps import MethodError
from lucency.models.metadata import (
    FEATURE_VIEWS,
    MEMBERS,
    METADATA,
    MODEL,
    MODEL_ONNX,
    NETWORK,
    Metadata,
    TrainedNetwork,
    read_metadata,
    read_model,
)
from lucency.models.onnx_runtime import SUM, OnnxNetwork, open_onnx, run
from lucency.pipeline.feature_stage import frozen_folder
from lucency.pipeline.run import (
    command_of,
    open_run_folder,
    refuse_trained_again,
    validation_auc,
    what_is_lost,
    whole_weights,
    why_nothing_predicts,
)

if TYPE_CHECKING:
    from lucency.models.classifier import Classifier

ENGINES = ("onnx", "torch")
DECISIONS = ("findings", "preparation", "split", "recalibration", "threshold", "sets")
Pixels = UInt8[np.ndarray, "n h w"]
SNAPSHOT = " snapshot "  # between a network's name and the number of its snapshot
WEIGHTS, ONNX = "weights.safetensors", "classifier.onnx"
ORIGIN, EXPORTER = "origin", 1  # in an ONNX file's metadata; raised where files change
EXPORTING = Lock()  # torch exports one network at once
NVIDIA = Path("/dev/nvidiactl")  # there where the driver of a GPU is


class NetworkOutput(NamedTuple):
    """What a network gives for films: logits before recalibration, and pooled features."""

    logit: Float32[np.ndarray, "n k"]
    feature: Float32[np.ndarray, "n d"]


class Watch(NamedTuple):
    """The network whose distance says which films are not like the training films."""

    network: str
    distance: Unfamiliarity


class OpenNetwork(NamedTuple):
    """A network that is ready: what it gives for films, and its ONNX file where that is used."""

    outputs: Callable[[Pixels], NetworkOutput]
    onnx: OnnxNetwork | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Home:
    """Where all that predicts lies, by name: networks' folders, and predictors' beside them.

    Frozen networks are among the networks; `views` are those of their features. `images` is the
    folder of the run's prepared films, whose names and patients are known. `own` is the name of
    the one thing that predicts, in the folder of a network and in an exported one. `lost` are
    entries of the leaderboard that were made before predictors were kept.
    """

    folder: Path
    networks: Mapping[str, Path]
    fitted: Mapping[str, Path] = field(default_factory=dict)
    views: int = 0
    engine: str = ""
    images: Path | None = None
    own: str = ""
    lost: tuple[str, ...] = ()
    opened: dict[str, OpenNetwork] = field(default_factory=dict, repr=False)
    loaded: dict[str, FittedPredictor] = field(default_factory=dict, repr=False)
    described: dict[str, Metadata] = field(default_factory=dict, repr=False)

    @cached_property
    def known(self) -> Manifest | None:
        """The run's own films, None where they are not there."""
        there = self.images is not None and (self.images / RECEIPT).is_file()
        return load_manifest(self.images) if self.images and there else None

    @cached_property
    def _rows_by_tail(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.known.image.tolist() if self.known else ()):
            rows.setdefault(film_tail(name), []).append(row)
        return rows

    def row_of(self, name: object) -> int:
        """Return the row of the run's film that a film's name fits, -1 where there is not one."""
        rows = self._rows_by_tail.get(film_tail(name), [])
        if self.known is None or not rows:
            return -1
        fits = fitting_films(np.array([str(name)]), self.known.image[rows])[0]
        return rows[fits[0]] if len(fits) == 1 else -1

    def predictor(self, name: str) -> FittedPredictor:
        """Return what was fitted under a name, read once."""
        if name not in self.loaded:
            found = load_predictor(self.fitted[name])
            if name in found.rule.needed:
                raise ValueError(f"{self.fitted[name] / DATA}: {name!r} is a member of itself")
            self.loaded[name] = found
        return self.loaded[name]

    def metadata(self, name: str) -> Metadata:
        """Return what is known of a network, read once: its weights are in memory too."""
        if name not in self.described:
            self.described[name] = read_metadata(self.networks[name])
        return self.described[name]

    def open(self, names: Iterable[str]) -> None:
        """Make networks ready that are soon needed, side by side."""
        with thread_pool(usable_cores()) as pool:
            for _ in pool.map(self.network, names):
                pass

    def network(self, name: str) -> OpenNetwork:
        """Return a network, or a snapshot of one, ready for prepared films."""
        if name not in self.opened:
            if name in self.networks:
                self.metadata(name)  # what its weights are now
            self.opened[name] = open_network(*self.place(name), engine=self.engine)
        return self.opened[name]

    def place(self, name: str) -> tuple[Path, str, str]:
        """Return a network's folder, and its files of weights and ONNX."""
        if name in self.networks:
            exported = (self.networks[name] / MODEL).is_file()
            return self.networks[name], WEIGHTS, MODEL_ONNX if exported else ONNX
        network, _, number = name.rpartition(SNAPSHOT)
        if network not in self.networks:
            raise ValueError(
                f"{self.folder} holds no {name!r}, which is needed: expected what lucency wrote; "
                "export the model anew, or go on with lucency run"
            )
        stem = f"snapshot-{number}"
        return self.networks[network], f"{stem}.safetensors", f"{stem}.onnx"


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmPredictor:
    """A network, or what was fitted beside networks, as something that predicts films.

    `kind` is that of the leaderboard, "network" for a network, which has no `fitted`. `sets` is
    None for what was made before there were any. `watch` is the network itself, or the first of
    those that it is made of, where a distance is stored.
    """

    name: str
    kind: str
    findings: tuple[str, ...]
    preparation: Preparation
    split: str
    recalibration: Recalibration
    threshold: Float64[np.ndarray, " k"]
    home: Home
    fitted: FittedPredictor | None = None
    sets: ConformalSets | None = None
    watch: Watch | None = None

    def predict(self, prepared: Prepared) -> Predictions:
        """Return the predictions of films that are prepared as the training films were.

        A network's hold its features. Raises ValueError for films of other findings.
        """
        if prepared.manifest.findings != self.findings:
            raise ValueError(
                f"{self.name} predicts {self.findings}, the films are labelled "
                f"{prepared.manifest.findings}: expected the same findings in the same order"
            )
        films = FilmOutputs(home=self.home, prepared=prepared)
        if self.fitted is None:
            logit, feature = films.network(self.name)
        else:
            self.home.open(name for name in self.fitted.rule.needed if name in self.home.networks)
            logit = self.fitted.rule.logit(films)
            feature = np.empty((len(logit), 0), dtype=np.float32)
        manifest = prepared.manifest
        unfamiliarity = np.full((), np.nan)
        if self.watch:
            unfamiliarity = self.watch.distance.of(*films.network(self.watch.network))
        return Predictions(
            network=self.name,
            split=self.split,
            findings=self.findings,
            image=manifest.image,
            patient=manifest.patient,
            part=np.full(len(manifest), "test"),
            label=manifest.label,
            logit=logit,
            feature=feature,
            slope=self.recalibration.slope,
            offset=self.recalibration.offset,
            knot=self.recalibration.knot,
            unfamiliarity=unfamiliarity,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FilmOutputs:
    """What networks and other sources give for some films; see `lucency.ensemble.fitted.Outputs`.

    What a network gives is computed once, and so are textures and what was fitted.
    """

    home: Home
    prepared: Prepared
    made: dict[tuple[str, int, str, int], NetworkOutput] = field(default_factory=dict, repr=False)
    logit: dict[str, Float64[np.ndarray, "n k"]] = field(default_factory=dict, repr=False)

    @cached_property
    def names(self) -> list[str]:
        """What the films are called in the run, else their files: augmented views depend on it."""
        known, image = self.home.known, self.prepared.manifest.image.tolist()
        return [
            str(known.image[row]) if known is not None and row >= 0 else PurePath(name).name
            for name, row in zip(image, self._row.tolist(), strict=True)
        ]

    @property
    def patient(self) -> Int64[np.ndarray, " n"]:
        """Whose films they are in the run; NOBODY where that is not known."""
        known = self.home.known
        if known is None:
            return np.full(len(self._row), NOBODY)
        return np.where(self._row >= 0, known.patient[self._row], NOBODY)

    @cached_property
    def _row(self) -> Int64[np.ndarray, " n"]:
        """The films' rows among the run's own, -1 for others."""
        names = self.prepared.manifest.image.tolist()
        return np.array([self.home.row_of(name) for name in names], dtype=np.int64)

    def network(self, name: str) -> NetworkOutput:
        """Return what a network gives for the films."""
        return self._view(name, view=-1, recipe="", seed=0)

    def calibrated(self, name: str) -> Float64[np.ndarray, "n k"]:
        """Return the recalibrated logits of a network or predictor; a snapshot's are its own."""
        if name not in self.logit:
            self.logit[name] = self._calibrated(name)
        return self.logit[name]

    def _calibrated(self, name: str) -> Float64[np.ndarray, "n k"]:
        if name in self.home.fitted:
            fitted = self.home.predictor(name)
            return fitted.recalibration.apply(fitted.rule.logit(self))
        logit = self.network(name).logit
        if name not in self.home.networks:
            return logit.astype(np.float64)
        return self.home.metadata(name).recalibration.apply(logit)

    def viewed(
        self, network: str, *, view: int, recipe: str, seed: int
    ) -> Float[np.ndarray, "n k"]:
        """Return a network's own logits of one augmented view of the films; -1 is none."""
        return self._view(network, view=view, recipe=recipe, seed=seed).logit

    def feature(self, source: str) -> Float32[np.ndarray, "n d"]:
        """Return the features by one source, or by several joined by +."""
        return np.concatenate([self._feature(one) for one in source.split(AND)], axis=1)

    def _feature(self, source: str) -> Float32[np.ndarray, "n d"]:
        if source == TEXTURE:
            return self._texture
        feature = self.network(source).feature
        if not source.startswith(FROZEN) or not self.home.views:
            return feature
        for view in range(self.home.views):
            feature = feature + self._view(source, view=view, **FEATURE_VIEWS).feature
        return feature / (1 + self.home.views)

    @cached_property
    def _texture(self) -> Float32[np.ndarray, "n d"]:
        from lucency.ensemble.radiomics import texture_row

        rows = [texture_row(np.array(film))[0] for film in self.prepared.pixels]
        return np.array(rows, dtype=np.float32)

    def _view(self, name: str, *, view: int, recipe: str, seed: int) -> NetworkOutput:
        key = (name, view, recipe, seed) if view >= 0 else (name, -1, "", 0)
        if key not in self.made:
            pixels = np.asarray(self.prepared.pixels)
            if view >= 0:
                pixels = self._changed(view, recipe=recipe, seed=seed)
            self.made[key] = self.home.network(name).outputs(pixels)
        return self.made[key]

    def _changed(self, view: int, *, recipe: str, seed: int) -> Pixels:
        """Return one view of every film, which depends on its name, the seed and `view` alone."""
        from lucency.models.augmentation import augment, seed_of

        seeds = [seed_of(seed, view, name, 0) for name in self.names]
        pairs = zip(self.prepared.pixels, seeds, strict=True)
        return np.stack([augment(film, recipe=recipe, seed=one) for film, one in pairs])


def open_predictor(folder: Path, *, name: str = "", engine: str = "") -> FilmPredictor:
    """Return what predicts films: of a run what is called `name`, or the best on validation films.

    `folder` may also be that of one network. Raises ValueError where there is none, for an unknown
    name, the nearest named, and an unknown engine; without a name also where a part of a finished
    run is absent, as in a part of a copy.
    """
    if engine not in ("", *ENGINES):
        raise ValueError(f"engine {engine!r} is unknown: expected {' or '.join(ENGINES)}")
    home = replace(find_home(folder), engine=engine)
    if home.own and name not in ("", home.own):
        raise ValueError(f"{folder} is {home.own} alone; expected no --model beside it")
    known = [one for one in (*home.networks, *home.fitted) if not one.startswith(FROZEN)]
    if name in home.lost or (home.lost and not name):
        older = name or home.lost[0]
        text = f"{older} is not there, or was made before predictors were kept: go on with "
        text += command_of(folder)
        if name:
            raise ValueError(f"{folder}: {text}")
        say(text)
    if name and name not in known:
        raise ValueError(
            f"{folder} has no {name!r}; expected one of {', '.join(known)}{nearest(name, known)}"
        )
    if not name and (lost := what_is_lost(folder)):
        raise ValueError(
            f"{folder}: found no {lost}, which its report is about: copy the run whole, or name "
            "what predicts (--model)"
        )
    chosen = name or home.own or highest(validation_scores(home))
    return _network_of(home, chosen) if chosen in home.networks else _fitted_of(home, chosen)


class ScoredFields(SavedFields):
    """The score among what predictor.json holds."""

    validation_auc: float


def validation_scores(home: Home) -> dict[str, float]:
    """Return the macro AUC on validation films of all that predicts, by name.

    Weights of ensembles were fitted to these films, those of a stack were not.
    """
    named = {
        name: _network_score(place)
        for name, place in home.networks.items()
        if not name.startswith(FROZEN)
    }
    for name, place in home.fitted.items():
        named[name] = read_fields(place / DATA, ScoredFields).validation_auc
    return named


def _network_score(place: Path) -> float:
    """Return a network's macro AUC on validation films; exported, what its folder states, or 0."""
    if (place / MODEL).is_file():
        return float(read_model(place).get("validation_auc") or 0.0)
    return validation_auc(place)


def best_of(home: Home) -> str:
    """Return the name of the network that is best on validation films.

    Raises MethodError where there is none.
    """
    scores = validation_scores(replace(home, fitted={}))
    if not scores:
        raise MethodError("found no network but frozen ones, expected one with findings")
    return highest(scores)


def highest(scores: Mapping[str, float]) -> str:
    """Return the name of the highest score, the first of several."""
    return max(scores, key=lambda one: scores[one])


def find_home(folder: Path) -> Home:
    """Return where all lies that predicts: in a run, a network's folder or an exported one."""
    if (folder / MODEL).is_file():
        return _exported_home(folder)
    if (folder / METADATA).is_file():
        inside, name = folder.absolute().parent, read_metadata(folder).name
        run = inside.parent if inside.name == "networks" else folder
        images = run / "prepared" if (run / "protocol.toml").is_file() else None
        return Home(folder=folder, networks={name: folder}, images=images, own=name)
    trained = sorted(p.parent for p in (folder / "networks").glob("*/receipt.json"))
    if not trained and (folder / "variants").is_dir():
        where = min((folder / "variants").glob("*/seed-*"), default="variants/NAME/seed-N")
        raise ValueError(f"{folder} holds variants: name the folder of one, such as {where}")
    if not trained:
        raise ValueError(why_nothing_predicts(folder))
    networks = {place.name: place for place in trained}
    if not (folder / "protocol.toml").is_file():
        return Home(folder=folder, networks=networks)
    run = open_run_folder(folder)
    own = {network.name for network in run.protocol.network}
    networks = {name: place for name, place in networks.items() if name in own}  # and no copies
    choices = run.protocol.ensemble
    frozen = {FROZEN + one.name: frozen_folder(run.cache, one) for one in choices.frozen}
    entries = {name: folder / "ensemble" / folder_name(name) for name in _beside_networks(folder)}
    kept = {name: place for name, place in entries.items() if (place / DATA).is_file()}
    return Home(
        folder=folder,
        networks=networks | frozen,
        fitted=kept,
        views=choices.feature_views,
        images=run.cache / "prepared",
        lost=tuple(name for name in entries if name not in kept),
    )


def _beside_networks(folder: Path) -> list[str]:
    """Return what stands in a run's finished leaderboard beside its networks."""
    place = folder / "ensemble" / "leaderboard"
    file = place / "leaderboard.csv"
    if not ((place / RECEIPT).is_file() and file.is_file()):
        return []
    table = read_table(file, text=("network", "kind"), columns=("network", "kind"))
    return table.loc[table["kind"] != "network", "network"].tolist()


def _exported_home(folder: Path, *, around: tuple[Path, ...] = ()) -> Home:
    """Return where all lies that an exported folder holds, its members' folders among it.

    `around` are the folders that it lies in; ValueError for one that, by a link, lies in itself.
    """
    around = (*around, folder.resolve())
    if len({*around}) < len(around):
        raise ValueError(f"{folder} lies in itself, by a link: export the model anew")
    about = read_model(folder)
    kind, name = str(about["kind"]), str(about["name"])
    networks = {name: folder} if kind == NETWORK else {}
    fitted = {} if kind == NETWORK else {name: folder}
    for place in sorted((folder / MEMBERS).glob(f"*/{MODEL}")):
        member = _exported_home(place.parent, around=around)
        networks |= member.networks
        fitted |= member.fitted
    views = int(about.get("feature_views", 0))
    return Home(folder=folder, networks=networks, fitted=fitted, views=views, own=name)


def open_network(folder: Path, weights: str, onnx: str, *, engine: str) -> OpenNetwork:
    """Return a network that is ready for prepared films, on the engine that is best here.

    Its ONNX file is made of its weights where it is not there, damaged, or of other weights; where
    it cannot be made, the network runs on torch, and a line says so. Raises ValueError for an
    exported folder without a whole one.
    """
    if engine == "torch" or (not engine and _has_gpu()):
        return on_torch(load_network(folder, weights))
    file = folder / onnx
    if onnx == MODEL_ONNX:
        opened, stated = open_onnx(file), read_model(folder)["fingerprints"].get(MODEL_ONNX)
        if stated != fingerprint_file(file):
            raise ValueError(
                f"{file} is damaged or of another export: delete its folder and "
                "export the model anew"
            )
        return _on_onnx(opened)
    origin = _origin(folder, weights)
    opened = _usable(file, origin)
    if opened is None:
        try:
            with EXPORTING, held_lock(file.with_name(file.name + LOCK), wait=WAIT_SECONDS):
                opened = _usable(file, origin) or _exported(folder, weights, file, origin=origin)
        except (ValueError, OSError) as error:
            say(f"{folder.name} runs on torch: {error}")
            return on_torch(load_network(folder, weights))
    return _on_onnx(opened)


def _has_gpu() -> bool:
    """Return whether torch has a GPU of NVIDIA; torch is loaded where the driver is there alone."""
    if not NVIDIA.exists() or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return False
    import torch

    return torch.cuda.is_available()


def _on_onnx(opened: OnnxNetwork) -> OpenNetwork:
    return OpenNetwork(lambda pixels: NetworkOutput(*run(opened, pixels)), opened)


def _origin(folder: Path, weights: str) -> str:
    """Return the fingerprint of all that an ONNX file is made from; ValueError where damaged."""
    known = read_metadata(folder)
    about = {name: getattr(known, name) for name in ("architecture", "mean", "std", "size")}
    about |= {"colour": known.colour, "head": known.head.model_dump(), "exporter": EXPORTER}
    whole = whole_weights(folder) if weights == WEIGHTS else fingerprint_file(folder / weights)
    return fingerprint({**about, "weights": whole})


def _usable(file: Path, origin: str) -> OnnxNetwork | None:
    """Return an opened ONNX file; None where it is not there, damaged, or of another origin.

    Nor is one without its fingerprint, which is written once it has been compared with torch.
    """
    if not (file.is_file() and file.with_suffix(SUM).is_file()):
        return None
    try:
        opened = open_onnx(file)
    except ValueError:  # it is made anew
        return None
    return opened if opened.metadata.get(ORIGIN) == origin else None


def _exported(folder: Path, weights: str, file: Path, *, origin: str) -> OnnxNetwork:
    """Return the opened ONNX file of a network, made now and compared with torch.

    Raises ValueError where it differs, or cannot be made; then there is none.
    """
    from lucency.models.onnx_export import largest_differences, too_far, write_onnx

    say(f"Exporting {folder.name} for ONNX Runtime, once")
    classifier, side = load_network(folder, weights), read_metadata(folder).preparation.size
    known = file.with_suffix(SUM)
    known.unlink(missing_ok=True)  # it is of the file before
    write_onnx(
        classifier.network,
        file,
        size=side,
        metadata={ORIGIN: origin, **cam_metadata(classifier)},
    )
    opened = open_onnx(file)
    ramp = (np.add.outer(np.arange(side), np.arange(side)) * 255 // (2 * side)).astype(np.uint8)
    apart = largest_differences(
        classifier.network, opened, pixels=np.stack([ramp, ramp[::-1], 255 - ramp])
    )
    if found := too_far(apart, findings=classifier.findings):
        file.unlink()
        raise ValueError(f"in its ONNX file {found}")
    write_whole(known, fingerprint_file(file))
    return opened


def on_torch(classifier: Classifier) -> OpenNetwork:
    """Return a network that is ready for prepared films, on torch and this process's device."""
    from lucency.models.film_loader import Films
    from lucency.models.inference import forward

    about = {"findings": classifier.findings, "preparation": classifier.preparation}

    def network(pixels: Pixels) -> NetworkOutput:
        names = [str(row) for row in range(len(pixels))]
        prepared = unlabelled(names, pixels, **about)
        films = Films(prepared=prepared, plan=only_tests(prepared.manifest.label), copies=0)
        return NetworkOutput(*forward(classifier.network, films=films))

    return OpenNetwork(network)


def of_classifier(classifier: Classifier) -> FilmPredictor:
    """Return a network in memory as something that predicts films, on torch."""
    opened = {classifier.name: on_torch(classifier)}
    home = Home(folder=Path(), networks={classifier.name: Path()}, opened=opened)
    return _of_metadata(home, classifier)


def load_network(folder: Path, weights: str) -> Classifier:
    """Return the network of a folder on torch, with the weights of one of its files."""
    from lucency.models.classifier import load_classifier, load_weights

    classifier = load_classifier(folder)
    if weights != WEIGHTS:
        load_weights(classifier.network.body, folder / weights, of=classifier.architecture)
    return classifier


def cam_metadata(classifier: Classifier) -> dict[str, str]:
    """Return what an ONNX file holds for heat maps without torch; {} and a line where it cannot."""
    import torch

    from lucency.explain.methods.cam import cam_head

    side = classifier.preparation.size
    film = torch.zeros(1, side, side, dtype=torch.uint8)
    try:
        return head_metadata(cam_head(classifier.network, film, findings=classifier.findings))
    except ValueError as error:
        say(f"{classifier.name}: heat maps need torch: {error}")
        return {}


def _network_of(home: Home, name: str) -> FilmPredictor:
    """Return a network; ValueError where its folder's name is that of another one.

    A copy beside the network it was made of is called by its folder.
    """
    found = _of_metadata(home, home.metadata(name))
    original = found.name in home.networks and home.metadata(found.name).name == found.name
    if found.name != name and not original:
        raise ValueError(
            f"{home.networks[name]} holds the network {found.name}: expected the folders of a run "
            "as they were named: rename it"
        )
    return replace(found, name=name, watch=_watch(home, name))


def _watch(home: Home, name: str) -> Watch | None:
    """Return the first network with a distance of those that something is made of, if any."""
    if name in home.networks:
        place = home.networks[name] / FOLDER
        return Watch(name, load_unfamiliarity(place)) if (place / FILE).is_file() else None
    if name not in home.fitted:  # a snapshot, or none of a network
        return None
    found = (_watch(home, one) for one in home.predictor(name).rule.needed)
    return next((one for one in found if one), None)


def _of_metadata(home: Home, known: TrainedNetwork) -> FilmPredictor:
    about = {one: getattr(known, one) for one in DECISIONS}
    return FilmPredictor(name=known.name, kind="network", home=home, **about)


def _fitted_of(home: Home, name: str) -> FilmPredictor:
    """Return what was fitted; ValueError where a network of the run was trained again since."""
    fitted, watch = home.predictor(name), _watch(home, name)
    for one in home.networks:
        refuse_trained_again(home.folder, one, weights=home.metadata(one).weights)
    about = {one: getattr(fitted, one) for one in ("kind", *DECISIONS)}
    return FilmPredictor(name=name, home=home, fitted=fitted, watch=watch, **about)

"""The sections of a protocol: one frozen, validated class each, and the names they may hold.

BALANCE_KEYS lists the keys of `[balance]` that each balancing method reads, SOURCE_KEYS the sources
that a key of `[data]` belongs to, where it is not all.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lucency.core.stores import named_place, url_of

Method = Literal[
    "none", "cap-and-copy", "partial", "positive-weights", "weighted-sampler", "class-aware",
    "lp-rus", "lp-ros", "ml-rus", "ml-ros", "remedial", "mlsmote", "mlsol", "mlul", "mlenn", "mltl",
]  # fmt: skip
UNDERSAMPLERS = {"lp-rus", "ml-rus", "mlul"}
MIXING = {"mlsmote", "mlsol"}
WEIGHING = {"partial", "positive-weights"}
BALANCE_KEYS: dict[str, tuple[str, ...]] = {
    "none": (),
    "cap-and-copy": ("before_split", "cap", "copy_plan", "cap_after", "copies_at"),
    "partial": ("ratio", "positive_weight"),
    "positive-weights": (),
    "weighted-sampler": ("copies",),
    "class-aware": ("copies",),
    "lp-rus": ("percent",),
    "lp-ros": ("percent", "copies"),
    "ml-rus": ("percent",),
    "ml-ros": ("percent", "copies"),
    "remedial": ("copies",),
    "mlsmote": ("neighbours", "labels", "features"),
    "mlsol": ("percent", "neighbours", "features"),
    "mlul": ("percent", "neighbours", "features"),
    "mlenn": ("neighbours", "features"),
    "mltl": ("features",),
}

SourceName = Literal[
    "nih", "csv", "phantom", "dicom", "chexpert", "chexpert-plus", "mimic-cxr", "cxr-lt", "brax",
    "padchest", "vindr-cxr", "openi", "rsna", "siim", "nih-lt",
]  # fmt: skip
STATED = ("nih", "phantom")  # sources whose labels are all 0 or 1
COLLECTED = tuple(name for name in get_args(SourceName) if name not in (*STATED, "csv", "dicom"))
SOURCE_KEYS: dict[str, tuple[str, ...]] = {
    "columns": ("csv",),
    "hospital": ("phantom",),
    "readers": ("vindr-cxr",),
    "uncertain": tuple(name for name in get_args(SourceName) if name not in STATED),
    "missing": tuple(name for name in get_args(SourceName) if name not in STATED),
    "no_finding_negates": COLLECTED,
}
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # scikit-learn takes no larger
SHIFTED_DATES = ("mimic-cxr", "cxr-lt", "brax")  # sources whose dates are those of no calendar
Uncertain = Literal["ignore", "zeros", "ones", "soft"]
PartName = Literal["train", "val", "test"]
TEXTURE, FROZEN, AND = "texture", "frozen ", "+"
THUMBNAIL = "thumbnail"
PLACES_OF_NETWORKS = ("hf-hub:", "local-dir:")  # timm's: a model of the hub, a folder of its files
HeatmapMethod = Literal[
    "cam", "grad-cam", "grad-cam++", "hires-cam", "layer-cam", "x-grad-cam", "occlusion",
    "integrated-gradients", "smooth-grad", "attention-rollout",
]  # fmt: skip
Loss = Literal[
    "bce", "w-cel", "focal", "asymmetric", "poly", "distribution-balanced", "ldam", "zlpr",
    "two-way", "auc-margin",
]  # fmt: skip
Tracker = Literal["none", "tensorboard", "mlflow", "wandb", "trackio"]
UNWEIGHTED = {"zlpr", "two-way", "auc-margin"}  # losses that compare cells: a cell has no weight
HARD_LABELS = {"two-way"}  # losses for which a label is 0 or 1, not a share
Pooling = Literal["own", "average", "max", "lse", "grid", "csra", "ml-decoder"]
ATTENTION = ("csra", "ml-decoder")  # of Pooling: every finding looks at the maps in its own way
Colour = Literal[
    "none", "autumn", "bone", "jet", "winter", "rainbow", "ocean", "summer", "spring", "cool",
    "hsv", "pink", "hot", "parula", "magma", "inferno", "plasma", "viridis", "cividis", "twilight",
    "twilight-shifted", "turbo", "deepgreen", "green-fire-blue",
]  # fmt: skip


class Choices(BaseModel):
    """A section: no unknown key, no impossible number, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _truth_is_no_number(cls, choices: Any) -> Any:
        for key, value in choices.items() if isinstance(choices, dict) else ():
            field = cls.model_fields.get(key)
            if isinstance(value, bool) and field and field.annotation in (int, float, int | None):
                raise ValueError(f"{key} is {str(value).lower()}, expected a number")
        return choices

    @model_validator(mode="after")
    def _fits_together(self) -> Choices:
        self._check()
        return self

    def _check(self) -> None:
        """Raise ValueError where the choices do not fit each other."""


def _with_tracker(training: Any) -> Any:
    """Return keys of `[training]` with `tracker` in place of `tensorboard`, its earlier name."""
    if not isinstance(training, dict) or "tensorboard" not in training:
        return training
    if "tracker" in training or not isinstance(training["tensorboard"], bool):
        raise ValueError(
            "tensorboard is the earlier name of tracker: expected tracker alone, or true or false"
        )
    other = {key: value for key, value in training.items() if key != "tensorboard"}
    return {**other, "tracker": "tensorboard" if training["tensorboard"] else "none"}


class Source(Choices):
    """Where films and labels come from, and what becomes of a collection's own labels.

    `uncertain` says what a label that is stated as uncertain becomes, for all findings or by
    finding ("" is the others'): not stated, 0, 1, or not stated with a training target between the
    two ("soft"). `missing` is what an empty label is. With `no_finding_negates` a film of No
    Finding has none of the findings that the collection contrasts with it. `readers` combines
    several readers' labels. `align` maps the collection's names to findings of the protocol, one or
    several, "" to none; what it does not name is mapped as the collection's documentation page
    says. `columns` are those of a csv table that are kept as facts. Of an archive (dicom),
    `key` is the file of the key of pseudonyms, `group_by_study` takes a study for a patient where
    PatientID is absent, and `cap_age` is what higher ages become. `hospital` is one of two for
    phantoms: the second has other films and other patients. `also` are further sources, whose films
    stand beside these.
    """

    source: SourceName = "phantom"
    root: str = ""
    labels: str = ""
    allow_missing: bool = False
    exclude: str = ""
    image_column: str = "image"
    patient_column: str = "patient"
    columns: tuple[str, ...] = ()
    key: str = ""
    group_by_study: bool = False
    cap_age: int = Field(default=0, ge=0, le=120)
    views: tuple[str, ...] = ()
    one_film_a_patient: bool = False
    uncertain: Uncertain | dict[str, Uncertain] = "ignore"
    missing: Literal["unknown", "negative"] = "unknown"
    no_finding_negates: bool = True
    readers: Literal["majority", "any", "all", "soft"] = "majority"
    align: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    hospital: Literal[1, 2] = 1
    films: int = Field(default=2000, ge=20)
    size: int = Field(default=512, ge=32, le=4096)
    seed: Seed = 0
    label_noise: float = Field(default=0.0, ge=0, lt=1)
    shortcut: float = Field(default=0.0, ge=0, le=1)
    also: tuple[Source, ...] = ()

    @field_validator("root")
    @classmethod
    def _named_root(cls, root: str) -> str:
        return named_place(root)

    def _check(self) -> None:
        if self.source == "dicom" and url_of(self.root):
            raise ValueError(
                f"root: {self.root}: an archive with a key of pseudonyms is read from a local "
                'folder: copy it, or name its films in a table (source = "csv")'
            )
        for key, sources in SOURCE_KEYS.items():
            default = type(self).model_fields[key].get_default(call_default_factory=True)
            if self.source not in sources and getattr(self, key) != default:
                by = ", ".join(sources)
                raise ValueError(f"{key} means nothing to {self.source!r}; it belongs to {by}")
        if any(one.also for one in self.also):
            raise ValueError("also: a further source has `also` of its own: list all in one")

    @property
    def is_soft(self) -> bool:
        """Whether labels of this source, or of one beside it, may be trained on as shares."""
        policies = self.uncertain.values() if isinstance(self.uncertain, dict) else [self.uncertain]
        return "soft" in (self.readers, *policies) or any(one.is_soft for one in self.also)

    @property
    def every(self) -> tuple[Source, ...]:
        """This source without the others, and the others."""
        return (self.model_copy(update={"also": ()}), *self.also)


class External(Source):
    """A source whose films no network is trained on: an external test, called `name`."""

    name: str = Field(pattern=r"^[a-z0-9-]+$")


class Split(Choices):
    """Which films train, validate and test.

    `column` is the fact that holds each film's part ("split" if empty), or, by time, its day
    ("date"); `lists` are files of names, relative to `data.root`, by part. Where these, or a
    publisher, name no validation films, a share of train is taken by patient, as `val` is of
    `train` and `val`.
    With `folds` (at least 3; by patient alone) every patient tests in one of them, `fold` in this
    run; the others train and validate in the proportion of their shares. `apart` is the share of
    films set apart, by patient, before anything else, balancing too: no network is trained or
    selected on those patients, and all are evaluated on them at the end.
    """

    method: Literal["patient", "official", "shuffled", "column", "lists", "time", "image"] = (
        "patient"
    )
    column: str = ""
    lists: dict[PartName, str] = Field(default_factory=dict)
    train: float = Field(default=0.70, gt=0, lt=1)
    val: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.15, gt=0, lt=1)
    apart: float = Field(default=0.0, ge=0, lt=1)
    folds: int = Field(default=0, ge=0)
    fold: int = Field(default=0, ge=0)
    seed: Seed = 0

    def _check(self) -> None:
        if self.folds in (1, 2) or (self.folds and self.method != "patient"):
            raise ValueError('`folds` are 0 or at least 3, with `method = "patient"`')
        if self.fold >= max(1, self.folds):
            raise ValueError(f"`fold` is counted from 0: found {self.fold} of {self.folds}")
        if abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test is {self.train + self.val + self.test:g}, not 1")
        if self.column and self.method not in ("column", "time"):
            raise ValueError(
                f'column means nothing to method "{self.method}"; it belongs to "column", "time"'
            )
        named = {part for part, file in self.lists.items() if file}
        if bool(self.lists) != (self.method == "lists") or (
            named and not named >= {"train", "test"}
        ):
            raise ValueError(
                'lists and method = "lists" belong together: expected both, train and test among '
                'them, as in lists = { train = "train.txt", test = "test.txt" }, or neither'
            )


class Cap(Choices):
    """Drop random films that carry `finding` until `films` are left."""

    finding: str
    films: int = Field(ge=0)


class Copy(Choices):
    """Add `copies` augmented copies of `films` films that carry `finding` (0 means of all)."""

    finding: str
    copies: int = Field(ge=1)
    films: int = Field(default=0, ge=0)
    sharpen: float = Field(default=1.0, ge=0, le=1)


class Head(Choices):
    """What follows a network's last maps: what its authors put there (`own`), or what stands here.

    Then a 1 x 1 convolution makes `transition` maps of them (0: none), each is pooled by itself,
    and hidden layers of `dense` features with ReLU, and `dropout` after each, lead to the last.
    "csra" and "ml-decoder" lead from maps to logits at once. Of CSRA, `attention_heads` are added
    up; in each the attended score counts `attention_weight` times beside the mean score, and
    `temperature` sharpens the attention of a single head.
    `stage` cuts the network short: its maps are those of that stage of timm's
    `forward_intermediates`, counted from 0, or back from -1, the last; None is the whole network.
    """

    pooling: Pooling = "own"
    stage: int | None = None
    transition: int = Field(default=0, ge=0, le=8192)
    dense: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = ()
    dropout: float = Field(default=0.0, ge=0, lt=1)
    attention_weight: float = Field(default=0.1, ge=0, le=100)
    attention_heads: Literal[1, 2, 4, 6, 8] = 1
    temperature: float = Field(default=1.0, gt=0, le=99)

    def _check(self) -> None:
        self._attention_fits()
        is_cut = self.stage is not None
        if self.pooling == "own" and (self.transition or self.dense or self.dropout or is_cut):
            raise ValueError(
                "stage, transition, dense and dropout belong to maps that are pooled here: set "
                'pooling to another than "own", such as "average" or "grid"'
            )
        if self.dropout and not self.dense:
            raise ValueError("dropout follows layers of `dense`: without them set training.dropout")

    def _attention_fits(self) -> None:
        keys = ("attention_weight", "attention_heads", "temperature")
        fields = type(self).model_fields
        changed = [key for key in keys if getattr(self, key) != fields[key].default]
        if changed and self.pooling != "csra":
            raise ValueError(
                f'{changed[0]} means nothing to pooling "{self.pooling}"; it belongs to "csra"'
            )
        if "temperature" in changed and self.attention_heads > 1:
            raise ValueError(
                f"temperature is {self.temperature:g}: {self.attention_heads} attention_heads have "
                "the temperatures of the paper; leave it out"
            )
        if self.dense and self.pooling in ATTENTION:
            raise ValueError(
                f'dense layers follow pooled maps: pooling "{self.pooling}" leads to logits at '
                "once; leave `dense` out"
            )

    @property
    def is_deep(self) -> bool:
        """Whether layers that must be trained stand before the last one."""
        return bool(self.transition or self.dense)


class Network(Choices):
    """One network to compare: any name of `lucency.models.networks`, its weights, what it changes.

    `architecture` is what is built where `name` is only what it is called here, so that one network
    can be trained in several ways. `size` is the side of its input, reduced from the prepared
    films; 0 is their own. `colour` is the table that makes three channels of grey; "none" repeats
    it. `seen` is what of the evaluated films its pre-training has been shown; empty is unknown, or
    what `lucency.models.foundation` knows of the layout that `match` names.
    """

    name: str
    architecture: str = ""
    weights: str = "random"
    provenance: str = ""
    seen: Literal["", "none", "images", "labels"] = ""
    match: Literal["name", "order", "eva-x", "rad-dino"] = "name"
    size: int = Field(default=0, ge=0, le=2048)
    colour: Colour = "none"
    head: Head = Head()
    training: dict[str, Any] = Field(default_factory=dict)

    @field_validator("training")
    @classmethod
    def _training_of_before_trackers(cls, training: dict[str, Any]) -> dict[str, Any]:
        return _with_tracker(training)

    @property
    def built(self) -> str:
        """The name of the architecture that is built."""
        return self.architecture or self.name

    def _check(self) -> None:
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise ValueError(f"name {self.name!r} names a folder: expected letters, digits, . _ -")
        if self.match in ("name", "order"):
            foreign = self.weights == "timm" and self.built.startswith(PLACES_OF_NETWORKS)
            if (self.weights not in ("random", "timm") or foreign) and not self.provenance:
                raise ValueError(
                    "weights from a file need `provenance`: what have they been shown?"
                )
        elif self.weights in ("random", "timm"):
            raise ValueError(
                f"match = {self.match!r} is how a published file is laid out: name that file in "
                f"`weights`, which is {self.weights!r}"
            )


class Balance(Choices):
    """What is done about rare findings, on training films; BALANCE_KEYS lists each method's keys.

    `then` is a second method, applied to what the first one made. `percent` is the share of films
    dropped or added; `ratio` how many negatives each positive may face, a positive counting
    `positive_weight` times; `neighbours` 0 is the number of the method's paper; `features` is the
    network by whose pooled features films are compared, "thumbnail" the films' 32 x 32 pixels.
    `copies_at` is whether copies are made of prepared films, or at the films' native size, as the
    reference study did.
    `before_split` is the published mistake, kept to study.
    """

    method: Method = "none"
    then: Method = "none"
    before_split: bool = False
    cap: tuple[Cap, ...] = ()
    copy_plan: tuple[Copy, ...] = ()
    cap_after: tuple[Cap, ...] = ()
    percent: float = Field(default=25.0, gt=0, le=1000)
    ratio: float = Field(default=10.0, gt=0)
    positive_weight: float = Field(default=2.0, gt=0)
    neighbours: int = Field(default=0, ge=0, le=100)
    labels: Literal["ranking", "union", "intersection"] = "ranking"
    copies: Literal["exact", "gentle"] = "gentle"
    copies_at: Literal["prepared", "native"] = "prepared"
    features: Network = Network(name=THUMBNAIL)
    seed: Seed = 0

    def _check(self) -> None:
        read = {"method", "then", *BALANCE_KEYS[self.method], *BALANCE_KEYS[self.then], "seed"}
        for key in type(self).model_fields:
            if key not in read and getattr(self, key) != type(self).model_fields[key].default:
                by = ", ".join(name for name, keys in BALANCE_KEYS.items() if key in keys)
                raise ValueError(f"{key} means nothing to {self.method!r}; it belongs to {by}")
        self._features_can_be_had()
        dropped = {self.method, self.then} & UNDERSAMPLERS
        if dropped and self.percent >= 100:
            raise ValueError(f"percent is {self.percent:g}: {dropped.pop()} would leave no film")
        if {self.method, self.then} <= MIXING:
            raise ValueError(f"{self.method!r} then {self.then!r} mixes films that are mixed")
        if self.copies_at == "native" and self.then in MIXING:
            raise ValueError(f"copies_at is native: {self.then!r} mixes films of the prepared size")
        if self.method == "none" and self.then != "none":
            raise ValueError(f'then = "{self.then}" follows nothing: make it the method')

    def _features_can_be_had(self) -> None:
        if self.before_split and "features" in BALANCE_KEYS[self.then]:
            raise ValueError(f"before_split computes no features, which {self.then!r} needs")
        if self.features.name != THUMBNAIL and self.features.weights == "random":
            raise ValueError("features.weights is random: name pre-trained weights")
        if self.features.training:
            raise ValueError("features.training means nothing: that network is not trained")
        if self.features.head.is_deep:
            raise ValueError(
                "features.head has layers that nothing has trained: state pooling alone"
            )


class Training(Choices):
    """How a network is trained.

    `micro_batch` is how many films a process computes at once, with gradients added up; 0: all.
    `sync_batch_norm` normalises by the films of all processes instead of by each one's share.
    `frozen` is the share of the body's layers, counted from the input, that are never trained, or
    the name of the last such layer. `probe` begins with the head that logistic regression finds on
    the features of the body, `retrain` ends with such a head; `unfreeze_epochs` is how long the
    body thaws from its end. `ema` is the decay of the average of weights that is validated and
    kept, `swa_epochs` are the last ones, whose weights are averaged, at `swa_rate` of the learning
    rate. `mixup` is both parameters of the beta distribution of shares; `smoothing` draws labels
    to .5. `reweigh_after` is the share of the epochs after which the loss "ldam" weighs classes.
    """

    epochs: int = Field(default=10, ge=1)
    batch: int = Field(default=32, ge=1)
    micro_batch: int = Field(default=0, ge=0)
    sync_batch_norm: bool = False
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-4, gt=0, le=10)
    schedule: Literal["constant", "cosine", "plateau", "cyclic"] = "cosine"
    snapshots: int = Field(default=0, ge=0)
    warmup_epochs: float = Field(default=0.0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=0.0, ge=0)
    frozen_epochs: int = Field(default=0, ge=0)
    frozen: float | str = 0.0
    unfreeze_epochs: int = Field(default=0, ge=0)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    probe: bool = False
    retrain: Literal["none", "natural", "balanced"] = "none"
    ema: float = Field(default=0.0, ge=0, lt=1)
    swa_epochs: int = Field(default=0, ge=0)
    swa_rate: float = Field(default=0.1, gt=0, le=1)
    patience: int = Field(default=0, ge=0)
    keep: Literal["best", "last"] = "best"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    augment: Literal["none", "gentle", "strong"] = "none"
    augment_strength: float = Field(default=1.0, gt=0, le=3)
    mixup: float = Field(default=0.0, ge=0, le=10)
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    normalise: Literal["network", "unit"] = "network"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    loss: Loss = "bce"
    reweigh_after: float = Field(default=0.8, ge=0, le=1)
    tracker: Tracker = "none"
    seed: Seed = 0

    @property
    def recipe(self) -> str:
        """What every epoch changes, as a recipe of `lucency.models.augmentation`."""
        return "none" if self.augment == "none" else f"{self.augment}@{self.augment_strength:g}"

    @property
    def deciding(self) -> dict[str, Any]:
        """What weights depend on: all but the tracker, which only watches."""
        return self.model_dump(exclude={"tracker"})

    @model_validator(mode="before")
    @classmethod
    def _choices_of_before_trackers(cls, choices: Any) -> Any:
        return _with_tracker(choices)

    @field_validator("frozen", mode="before")
    @classmethod
    def _frozen_is_a_share_or_a_name(cls, frozen: Any) -> Any:
        is_number = isinstance(frozen, int | float) and not isinstance(frozen, bool)
        if not (0 <= frozen <= 1 if is_number else isinstance(frozen, str) and frozen):
            raise ValueError("expected a share from 0 to 1, or the name of a layer")
        return frozen

    def _check(self) -> None:
        if self.micro_batch == 1:
            raise ValueError("micro_batch is 1: expected 0 (the whole batch) or at least 2 films")
        cyclic, kept = self.schedule == "cyclic", 2 <= self.snapshots <= self.epochs
        if (self.snapshots or cyclic) and not (cyclic and kept and not self.patience):
            raise ValueError("`snapshots` are 0; or 2 to `epochs`, `cyclic`, with no `patience`")
        if cyclic and self.warmup_epochs >= self.epochs // self.snapshots:
            raise ValueError("`warmup_epochs` last a cycle of `epochs / snapshots`: shorten them")
        self._check_averages()
        self._check_layers()
        default = type(self).model_fields["reweigh_after"].default
        if self.loss != "ldam" and self.reweigh_after != default:
            raise ValueError(
                f"reweigh_after means nothing to loss {self.loss!r}; it belongs to 'ldam'"
            )

    def _check_averages(self) -> None:
        if self.ema and self.swa_epochs:
            raise ValueError("ema and swa_epochs: expected one average of weights, not both")
        if self.snapshots and (self.ema or self.swa_epochs):
            raise ValueError("snapshots are weights as they are: leave ema and swa_epochs out")
        if self.swa_epochs >= self.epochs:
            found = f"swa_epochs is {self.swa_epochs} of {self.epochs} epochs"
            raise ValueError(f"{found}: expected fewer, since averaging follows training")
        if self.swa_epochs and (self.keep != "last" or self.patience):
            raise ValueError('swa_epochs end in the average: set keep = "last", leave patience out')
        if self.swa_epochs and self.warmup_epochs > self.epochs - self.swa_epochs:
            raise ValueError("warmup_epochs last into swa_epochs: shorten one of them")
        if not self.swa_epochs and self.swa_rate != type(self).model_fields["swa_rate"].default:
            raise ValueError("swa_rate means nothing without swa_epochs")

    def _check_layers(self) -> None:
        if self.augment == "none" and self.augment_strength != 1:
            raise ValueError('augment_strength means nothing to augment = "none"')
        if self.unfreeze_epochs >= self.epochs:
            found = f"unfreeze_epochs is {self.unfreeze_epochs} of {self.epochs} epochs"
            raise ValueError(f"{found}: expected fewer, so that all layers are trained")
        if self.unfreeze_epochs and (self.frozen or self.frozen_epochs or self.patience):
            raise ValueError("unfreeze_epochs: leave frozen, frozen_epochs and patience out")
        if self.loss in HARD_LABELS and (self.mixup or self.smoothing):
            raise ValueError(
                f'loss "{self.loss}" knows no soft labels: leave mixup and smoothing out'
            )
        if self.frozen and self.swa_epochs:
            raise ValueError("frozen and swa_epochs: batch statistics of frozen layers stay")


class EvaluationChoices(Choices):
    """How networks are evaluated; recalibration and threshold are fitted on validation films.

    The threshold "half" is .5 for every finding, and fitted to nothing; `recall` is the least to
    be expected of the threshold "recall" on new films. `error` is the share of sets that may lack
    the truth, `missed` the share of a film's findings that may be below the cutoff
    (`lucency.evaluation.conformal`). `published` names the study whose scores stand beside.
    """

    resamples: int = Field(default=1000, ge=20, le=1_000_000)
    recalibration: Literal["none", "temperature", "platt", "isotonic"] = "platt"
    threshold: Literal["f1", "youden", "recall", "half"] = "f1"
    recall: float = Field(default=0.9, gt=0, le=1)
    error: float = Field(default=0.1, gt=0, lt=1)
    missed: float = Field(default=0.1, gt=0, lt=1)
    published: Literal["", "reference-study"] = ""
    seed: Seed = 0

    @property
    def draws(self) -> dict[str, Any]:
        """How often patients are drawn for confidence intervals, and with which seed."""
        return {"resamples": self.resamples, "seed": self.seed}

    @property
    def levels(self) -> dict[str, float]:
        """The levels of sets and of their cutoff."""
        return {"error": self.error, "missed": self.missed}

    @property
    def scoring(self) -> dict[str, Any]:
        """What scores depend on: all but the levels of sets."""
        return self.model_dump(exclude=set(self.levels))

    @property
    def deciding(self) -> dict[str, Any]:
        """What is fitted to validation films; usual levels are left out.

        So a network of before there were sets is not trained anew.
        """
        other = self.model_dump(include=set(self.levels), exclude_defaults=True)
        return self.model_dump(include={"recalibration", "threshold", "recall"}) | other

    def _check(self) -> None:
        if self.threshold != "recall" and self.recall != type(self).model_fields["recall"].default:
            raise ValueError(
                f"recall means nothing to threshold {self.threshold!r}; it belongs to 'recall'"
            )


class ExplanationChoices(Choices):
    """Heat maps: by which methods, and on how many films their faithfulness is tested.

    `network` "" is the best on validation films.
    """

    network: str = ""
    methods: tuple[HeatmapMethod, ...] = ("grad-cam", "hires-cam")
    films: int = Field(default=12, ge=1, le=64)
    seed: Seed = 0

    def _check(self) -> None:
        refuse_twice("methods", self.methods)


class UnfamiliarChoices(Choices):
    """Films that are not like the training films: by which distance, and how often at most.

    `score` is the distance that is stored with every network, and `refused` the share of ordinary
    films that it may refuse. The report tests it on so many `films` of each kind of alien, and
    compares it with other distances, of which one is that to so many-th of `neighbours`.
    """

    score: Literal["none", "mahalanobis", "energy"] = "none"
    refused: float = Field(default=0.05, gt=0, lt=1)
    neighbours: int = Field(default=10, ge=1, le=1000)
    films: int = Field(default=100, ge=3, le=10_000)
    seed: Seed = 0

    def _check(self) -> None:
        fields = type(self).model_fields
        changed = [key for key, field in fields.items() if getattr(self, key) != field.default]
        if self.score == "none" and changed:
            raise ValueError(f'{changed[0]} means nothing to score "none": choose a score')


class Variant(Choices):
    """The experiment with some keys changed: sections as in the protocol, only what differs."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=r"^[a-z0-9-]+$")

    @property
    def changes(self) -> dict[str, Any]:
        """The changed keys, nested as in a protocol."""
        changes = dict(self.model_extra or {})
        if "training" in changes:
            changes["training"] = _with_tracker(changes["training"])
        return changes


def refuse_twice(key: str, names: tuple[str, ...]) -> None:
    """Raise ValueError where a name of `key` is there twice."""
    if len(set(names)) < len(names):
        raise ValueError(f"{key} {', '.join(names)}: expected each once")


DRAWS = EvaluationChoices().draws  # where no protocol is

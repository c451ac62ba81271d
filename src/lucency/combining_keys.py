"""The choices of what stands beside the networks; a section of the protocol of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from lucency.choices import Choices, Network
from lucency.values import nearest

Ensemble = Literal[
    "mean-probability", "mean-logit", "mean-rank", "evolved", "convex", "convex-by-finding",
    "greedy", "stacked",
]  # fmt: skip
LearnerName = Literal[
    "logistic", "linear-svm", "rbf-svm", "forest", "neighbours", "boosting", "bayes", "perceptron",
]  # fmt: skip
TEXTURE, FROZEN, AND = "texture", "frozen ", "+"
TEXTURED = 96  # pixels of a film's side, below which waves and patterns are as large as lungs


class Combining(Choices):
    """Ensembles, classical learners, similar films and more views, judged beside the networks.

    `sources` are whose features learners and neighbours take: a network of the protocol,
    "frozen NAME" for one of `frozen`, which is not trained here, "texture", or several joined
    by +. Empty is the best network on validation films.
    """

    ensembles: tuple[Ensemble, ...] = ()
    learners: tuple[LearnerName, ...] = ()
    oversampling: Literal["none", "balanced"] = "none"
    sources: tuple[str, ...] = ()
    frozen: tuple[Network, ...] = ()
    neighbours: int = Field(default=0, ge=0, le=1000)
    views: int = Field(default=0, ge=0, le=64)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _each_once(self) -> Combining:
        frozen = tuple(network.name for network in self.frozen)
        for key in ("ensembles", "learners", "sources"):
            _refuse_twice(key, getattr(self, key))
        _refuse_twice("frozen", frozen)
        for source in self.sources:
            _refuse_twice("sources: joined are", tuple(source.split(AND)))
        if told := [network.name for network in self.frozen if network.training]:
            raise ValueError(f"frozen: {told[0]!r} has `training`, which means nothing to it")
        if told := [network.name for network in self.frozen if network.weights == "random"]:
            raise ValueError(f"frozen: {told[0]!r} has random weights: name some that have learnt")
        if deep := [network.name for network in self.frozen if network.head.is_deep]:
            raise ValueError(f"frozen: {deep[0]!r} has a head with layers that nothing has trained")
        return self

    @model_validator(mode="after")
    def _sources_are_asked(self) -> Combining:
        if self.sources and not (self.learners or self.neighbours):
            raise ValueError("sources mean nothing without `learners` or `neighbours`")
        unused = {FROZEN + network.name for network in self.frozen} - set(self.single_sources)
        if unused:
            raise ValueError(f"frozen: {min(unused)!r} is not among `sources`")
        return self

    @property
    def single_sources(self) -> tuple[str, ...]:
        """The sources, those that are joined apart."""
        return tuple(one for source in self.sources for one in source.split(AND))

    def check(self, networks: tuple[str, ...], *, split: str, size: int) -> None:
        """Raise ValueError unless the protocol's networks, split and films allow this."""
        if self.ensembles and len(networks) < 2:
            raise ValueError(
                f"combining.ensembles: expected two networks or more, found {len(networks)}"
            )
        known = (*networks, *(FROZEN + network.name for network in self.frozen), TEXTURE)
        for source in self.single_sources:
            if source not in known:
                raise ValueError(
                    f"combining.sources: {source!r} is unknown; expected of {', '.join(known)}, or "
                    f"several joined by + without spaces{nearest(source.strip(), known)}"
                )
        if TEXTURE in self.single_sources and size < TEXTURED:
            raise ValueError(
                f"combining.sources: textures want films of {TEXTURED} pixels or more; "
                f"preparation.size is {size}"
            )
        if split == "image" and (self.learners or self.neighbours):
            raise ValueError(
                'combining.learners and neighbours need a split by patient: split.method is "image"'
            )


def _refuse_twice(key: str, names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        raise ValueError(f"{key} {', '.join(names)}: expected each once")

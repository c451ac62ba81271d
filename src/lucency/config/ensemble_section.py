"""The protocol's section on ensembles, classical learners and similar films."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from lucency.config.sections import AND, FROZEN, TEXTURE, Choices, Network, Seed, refuse_twice
from lucency.core.manifest import nearest

Ensemble = Literal[
    "mean-probability", "mean-logit", "mean-rank", "evolved", "convex", "convex-by-finding",
    "greedy", "stacked",
]  # fmt: skip
LearnerName = Literal[
    "logistic", "linear-svm", "rbf-svm", "forest", "neighbours", "boosting", "bayes", "perceptron",
]  # fmt: skip
RESERVED = ("leaderboard", "costs")  # folders beside those of predictors
TEXTURED = 96  # pixels of a film's side, below which waves and patterns are as large as lungs


class EnsembleChoices(Choices):
    """Ensembles, classical learners, similar films and more views, evaluated beside the networks.

    `sources` are whose features learners and neighbours take: a network of the protocol,
    "frozen NAME" for one of `frozen`, which is not trained here, "texture", or several joined
    by +. Empty is the best network on validation films. The features of `frozen` are means over a
    film and `feature_views` gently changed views of it. `members` are the predictors that
    `ensembles` combine, as the leaderboard names them; empty is all networks.
    """

    ensembles: tuple[Ensemble, ...] = ()
    learners: tuple[LearnerName, ...] = ()
    oversampling: Literal["none", "balanced"] = "none"
    sources: tuple[str, ...] = ()
    frozen: tuple[Network, ...] = ()
    feature_views: int = Field(default=0, ge=0, le=64)
    members: tuple[str, ...] = ()
    neighbours: int = Field(default=0, ge=0, le=1000)
    views: int = Field(default=0, ge=0, le=64)
    seed: Seed = 0

    def _check(self) -> None:
        frozen = tuple(network.name for network in self.frozen)
        for key in ("ensembles", "learners", "sources", "members"):
            refuse_twice(key, getattr(self, key))
        refuse_twice("frozen", frozen)
        for source in self.sources:
            refuse_twice("sources: joined are", tuple(source.split(AND)))
        for network in self.frozen:
            if network.training:
                raise ValueError(f"frozen: {network.name!r} has `training`, which it does not read")
            if network.weights == "random":
                raise ValueError(f"frozen: {network.name!r} has random weights: name trained ones")
            if network.head.is_deep:
                raise ValueError(
                    f"frozen: {network.name!r} has a head with layers that nothing has trained"
                )
        self._sources_are_used()

    def _sources_are_used(self) -> None:
        if self.sources and not (self.learners or self.neighbours):
            raise ValueError("sources mean nothing without `learners` or `neighbours`")
        unused = {FROZEN + network.name for network in self.frozen} - set(self.single_sources)
        if unused:
            raise ValueError(f"frozen: {min(unused)!r} is not among `sources`")
        if self.feature_views and not self.frozen:
            raise ValueError("feature_views are those of `frozen` networks: name some")
        if self.members and not self.ensembles:
            raise ValueError("members mean nothing without `ensembles`")

    @property
    def single_sources(self) -> tuple[str, ...]:
        """The sources, those that are joined apart."""
        return tuple(one for source in self.sources for one in source.split(AND))

    def check(self, networks: tuple[str, ...], *, split: str, size: int) -> None:
        """Raise ValueError unless the protocol's networks, split and films allow this."""
        if taken := {*get_args(Ensemble), *RESERVED}.intersection(networks):
            raise ValueError(f"network: {min(taken)!r} is what something else of a run is called")
        self._check_members(networks)
        known = (*networks, *(FROZEN + network.name for network in self.frozen), TEXTURE)
        for source in self.single_sources:
            if source not in known:
                raise ValueError(
                    f"ensemble.sources: {source!r} is unknown; expected of {', '.join(known)}, or "
                    f"several joined by + without spaces{nearest(source.strip(), known)}"
                )
        if TEXTURE in self.single_sources and size < TEXTURED:
            raise ValueError(
                f"ensemble.sources: textures want films of {TEXTURED} pixels or more; "
                f"preparation.size is {size}"
            )
        if split == "image" and (self.learners or self.neighbours):
            raise ValueError(
                'ensemble.learners and neighbours need a split by patient: split.method is "image"'
            )

    def _check_members(self, networks: tuple[str, ...]) -> None:
        combined = self.members or networks
        if self.ensembles and len(combined) < 2:
            found = f"found {len(combined)}"
            raise ValueError(f"ensemble.ensembles: expected two networks or more, {found}")
        known = (*networks, *self.made_of(networks))
        for member in self.members:
            if member not in known:
                raise ValueError(
                    f"ensemble.members: {member!r} is not made here; expected of "
                    f"{', '.join(known)} (learners and votes need named `sources`, views `views`)"
                    f"{nearest(member, known)}"
                )

    def made_of(self, networks: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of what is made of networks and of named sources, ensembles apart."""
        views = [f"{name} with views" for name in networks if self.views]
        learnt = [f"{learner} on {source}" for source in self.sources for learner in self.learners]
        voted = [f"{self.neighbours} neighbours on {one}" for one in self.sources]
        return (*views, *learnt, *(voted if self.neighbours else ()))

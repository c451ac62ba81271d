"""The search space of a sweep: what it may hold, and that what cannot be is refused at once."""

import tomllib
from pathlib import Path

import pytest

from lucency.config.protocol import Protocol, parse_protocol, protocol_text, read_protocol
from lucency.config.search_space import CORNERS, Span, Sweep

SPACE = """
training.learning_rate = { low = 1e-5, high = 1e-3, log = true }
training.batch = { low = 16, high = 64, step = 16 }
training.augment = ["none", "gentle"]
network.0.training.dropout = { low = 0, high = 0.4 }
balance = [{ method = "none" }, { method = "ml-ros", percent = 20 }]
"""
PROTOCOL = """
name = "tiny"
[training]
epochs = 3
[[network]]
name = "test_convnext"
[sweep]
trials = 4
[sweep.space]
"""


def protocol(space: str, *changes: str) -> Protocol:
    choices = tomllib.loads(PROTOCOL + space)
    for text in changes:
        choices |= tomllib.loads(text)
    return parse_protocol(choices, name="tiny.toml")


def test_a_space_is_keys_and_values():
    space = protocol(SPACE).sweep.space
    assert space == {
        "training.learning_rate": Span(low=1e-5, high=1e-3, log=True),
        "training.batch": Span(low=16, high=64, step=16),
        "training.augment": ("none", "gentle"),
        "network.0.training.dropout": Span(low=0, high=0.4),
        "balance": ({"method": "none"}, {"method": "ml-ros", "percent": 20}),
    }
    whole = {key: one.is_whole for key, one in space.items() if isinstance(one, Span)}
    assert whole == {
        "training.learning_rate": False,
        "training.batch": True,
        "network.0.training.dropout": False,
    }


def test_a_protocol_with_a_sweep_and_its_text_are_one():
    swept = protocol(SPACE)
    again = parse_protocol(tomllib.loads(protocol_text(swept)), name="again")
    assert again == swept
    quoted = protocol('"training.learning_rate" = { low = 1e-5, high = 1e-3 }')
    assert [*quoted.sweep.space] == ["training.learning_rate"]


def test_a_candidate_is_the_protocol_with_a_trial_s_values():
    swept = protocol(SPACE)
    values = {
        "training.batch": 48, "network.0.training.dropout": 0.3,
        "balance": {"method": "ml-ros", "percent": 20},
    }  # fmt: skip
    made = swept.candidate(values)
    assert made.training == swept.training.model_copy(update={"batch": 48})
    assert made.training_of("test_convnext").dropout == 0.3
    assert (made.balance.method, made.balance.percent) == ("ml-ros", 20)
    assert made.sweep == Sweep()
    assert swept.candidate({}) == swept.model_copy(update={"sweep": Sweep()})


def test_all_ends_are_candidates_and_of_many_some():
    corners = [*protocol(SPACE).sweep.corners()]
    assert len({str(one) for one in corners}) == len(corners) == 2**5
    many = {f"training.k{n}": (1, 2) for n in range(20)}
    spread = [*Sweep(space=many).corners()]
    assert len({str(one) for one in spread}) == len(spread) == CORNERS
    for key in many:
        assert {one[key] for one in spread} == {1, 2}


REFUSED = {
    "no such key": ("training.rate = [1e-4, 1e-3]", "training.rate: unknown key"),
    "a key misspelt": ("training.epoch = [1, 2]", "nearest is 'epochs'"),
    "no such section": ("trainig.epochs = [1, 2]", "'trainig.epochs' cannot be searched"),
    "films": ("data.films = [100, 200]", "'data.films' cannot be searched, since all trials share"),
    "preparation": ("preparation.size = [64, 96]", "'preparation.size' cannot be searched"),
    "a section that is a number": ("training = [1, 2]", "training: found 1, expected a table"),
    "all networks": ("network = [1, 2]", "'network' cannot be searched"),
    "a key twice": (
        'balance = [{ method = "none" }, { method = "ml-ros" }]\n"balance.percent" = [10, 20]',
        "'balance' and 'balance.percent': expected one of them",
    ),
    "a seed": ("training.seed = [1, 2]", "'training.seed' is no choice to search"),
    "another name": ('network.0.name = ["alexnet", "densenet121"]', "is no choice to search"),
    "no such network": ("network.1.training.dropout = [0.1, 0.2]", "expected network.0"),
    "too high": ("training.dropout = { low = 0.0, high = 1.0 }", "found 1.0, expected .* below 1"),
    "too low": ("training.epochs = { low = 0, high = 3 }", "found 0, expected 1 or more"),
    "a part for a whole": ("training.epochs = { low = 1, high = 2.5 }", "expected a whole number"),
    "no such value": ('training.augment = ["none", "gentel"]', "nearest is 'gentle'"),
    "two that do not fit": (
        "training.epochs = [2, 6]\ntraining.swa_epochs = [0, 1]", "swa_epochs end in the average",
    ),
    "no effect": (
        "training.dropout = [0.1, 0.2]", "'training.dropout' has no effect: another key overrules",
    ),
    "another searched key": (
        'training.dropout = [0.1, 0.2]\nnetwork.0.training.dropout = [0.1, 0.3]',
        "'training.dropout' has no effect: another key overrules",
    ),
    "one value": ("training.epochs = [2]", "training.epochs is .2.: expected a list of two"),
    "one value twice": ("training.epochs = [2, 2]", "expected each value once"),
    "a number": ("training.epochs = 2", "training.epochs is 2: expected a list of two values"),
    "no high": ("training.epochs = { low = 2 }", "training.epochs: high is missing: expected"),
    "another word": (
        "training.epochs = { low = 2, high = 3, logg = true }",
        "training.epochs.logg: unknown key.*'log'",
    ),
    "a misspelt end": (
        "training.epochs = { low = 2, hihg = 3 }", "training.epochs.hihg: unknown key.*'high'",
    ),
    "no end": (
        "training.learning_rate = { low = 1e-5, high = inf }", "high: found Infinity, expected a n",
    ),
    "a word for a number": (
        'training.epochs = { low = "two", high = 3 }',
        'training.epochs.low: found "two", expected a number',
    ),
    "true for a number": (
        "training.epochs = { low = 1, high = true }",
        "training.epochs.high: found .*true.*, expected a number",
    ),
    "a number for true": (
        "training.epochs = { low = 2, high = 3, log = 5 }",
        "training.epochs.log: found 5, expected true or false",
    ),
    "upside down": ("training.epochs = { low = 3, high = 2 }", "expected low below high"),
    "logarithm of 0": ("training.dropout = { low = 0.0, high = 0.2, log = true }", "more than 0"),
    "both": ("training.epochs = { low = 1, high = 3, log = true, step = 1 }", "expected one of"),
    "steps beyond": ("training.epochs = { low = 1, high = 4, step = 2 }", "lead from low to high"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_an_impossible_space_is_refused_in_a_line(tmp_path: Path, what: str):
    space, message = REFUSED[what]
    text = PROTOCOL
    if what == "no effect":
        text = text.replace('name = "test_convnext"', 'name = "x"\ntraining = { dropout = 0.5 }')
    file = tmp_path / "tiny.toml"
    file.write_text(text + space)
    with pytest.raises(ValueError, match=message) as refusal:
        read_protocol(file)
    assert str(refusal.value).startswith(str(file))
    assert "\n" not in str(refusal.value)


ELSE = {
    "two networks": ('network = [{ name = "a" }, { name = "b" }]', "found the networks a, b"),
    "variants": ('variant = [{ name = "v", training = { epochs = 5 } }]', "expected one of them"),
    "films in two parts": ('split = { method = "image" }', "split by patient"),
    "seeds of the trials": ("training = { seed = 2 }", "sweep.seeds: 2 is training.seed"),
    "a network's seed": (
        'network = [{ name = "a", training = { seed = 9 } }]', "seeds a alone: expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ELSE)
def test_what_does_not_go_with_a_sweep_is_refused(what: str):
    change, message = ELSE[what]
    space = "training.learning_rate = [1e-4, 1e-3]"
    with pytest.raises(ValueError, match=message):
        protocol(space, change)
    protocol(space)


def test_seeds_are_each_another():
    for seeds in ("[1, 1]", "[-1]", "[]"):
        with pytest.raises(ValueError, match="seeds"):
            parse_protocol(
                tomllib.loads(PROTOCOL.replace("trials = 4", f"seeds = {seeds}")), name="tiny"
            )

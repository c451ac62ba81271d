"""Training at the limit of a device: batches in pieces give what whole batches give."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from lucency.config.sections import Training
from lucency.core.parallel import set_ranks
from lucency.models.film_loader import in_pieces, share_of_process
from lucency.models.losses import LOSSES
from toys import learn, toy_protocol

DEPENDENT = {"two-way", "auc-margin"}  # on which films they see together
WHOLE = {"batch": 18, "optimizer": "sgd", "clip_norm": 1.0, "ema": 0.5}


def losses_of(out: Path) -> np.ndarray:
    return pd.read_csv(out / "steps.csv")["loss"].to_numpy()


def distance(one: Path, other: Path) -> float:
    """The largest difference of two trainings' weights."""
    first, second = (load_file(out / "weights.safetensors") for out in (one, other))
    return max(float(np.abs(first[key] - second[key]).max()) for key in first)


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_batch_in_pieces_is_the_whole_batch(loss: str, tmp_path: Path):
    """18 films at once or in pieces of 4, 4, 4, 3 and 3; guard: it fails for losses that differ."""
    soft = {} if loss in ("ldam", "two-way") else {"mixup": 0.4}
    whole = {**WHOLE, **soft, "loss": loss}
    learn(tmp_path / "whole", toy_protocol(**whole))
    learn(tmp_path / "pieces", toy_protocol(**whole, micro_batch=4))
    apart = np.abs(losses_of(tmp_path / "whole") - losses_of(tmp_path / "pieces")).max()
    if loss in DEPENDENT:
        assert apart > 1e-4
        return
    assert apart < 1e-6
    assert distance(tmp_path / "whole", tmp_path / "pieces") < 1e-6


def test_batch_norm_sees_a_piece_at_a_time(tmp_path: Path):
    """Pieces of a network with batch statistics are another training, as documented."""
    for folder, pieces in (("whole", {}), ("pieces", {"micro_batch": 4})):
        learn(tmp_path / folder, toy_protocol("test_resnet", **WHOLE, **pieces))
    assert np.abs(losses_of(tmp_path / "whole") - losses_of(tmp_path / "pieces")).max() > 1e-4


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_pieces_hold_every_entry_once_and_never_more_than_stated(processes: int):
    """And from two films on every process has a share of every piece."""
    for entries in range(2 * processes, 60):
        batch = np.random.default_rng(entries).permutation(entries)
        for films in (0, 2, 3, 16):
            set_ranks(rank=0, local_rank=0, world_size=processes)
            pieces = in_pieces(batch, films=films)
            np.testing.assert_array_equal(np.concatenate(pieces), batch)
            for rank in range(processes):
                set_ranks(rank=rank, local_rank=rank, world_size=processes)
                shares = [len(share_of_process(piece)) for piece in pieces]
                assert min(shares) > 0
                assert max(shares) <= (films or entries)


def test_a_micro_batch_of_one_film_is_refused():
    with pytest.raises(ValueError, match="micro_batch is 1: expected 0"):
        Training(micro_batch=1)

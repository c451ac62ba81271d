"""Networks as ONNX files: every one gives there what it gives in torch; other files are refused."""

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import timm
import torch
from test_zoo import CONTRACTS, FINDING_COUNT, OWN, STATED, TIMM
from torch.nn import functional

from lucency.core.parallel import set_ranks, usable_cores
from lucency.models.metadata import FEATURES_ONLY
from lucency.models.networks import build
from lucency.models.onnx_export import (
    Differences,
    largest_differences,
    resizing_matrix,
    too_far,
    write_onnx,
)
from lucency.models.onnx_runtime import BATCH, TOLERANCE, maps, open_onnx, run

SIZE = 80
SMALL = "test_resnet"
CHANNELS_LAST = {"test_mambaout"}
NETWORKS = [*CONTRACTS, *((name, OWN) for name in timm.list_models("test_*") if name not in TIMM)]
QUICK = {(SMALL, OWN), ("test_vit", OWN), *((SMALL, STATED[at]) for at in (4, 6, 7))}


def films(count: int = 3, *, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size), dtype=np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """A small network that enlarges coloured films, and its file."""
    torch.manual_seed(0)
    network = build(SMALL, findings=FINDING_COUNT, size=96, colour="hot").eval()
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(network, file, size=SIZE, metadata={"notice": "research only"})
    return network, file


@pytest.mark.parametrize(
    ("name", "head"),
    [pytest.param(*one, marks=[pytest.mark.slow] * (one not in QUICK)) for one in NETWORKS],
)
def test_a_file_gives_what_the_network_gives(name: str, head, tmp_path: Path) -> None:
    torch.manual_seed(0)
    at_least = {"alexnet-reference": 224, "inceptionresnetv2": 96}
    size = at_least.get(name, 160 if name.startswith("test_") and name != SMALL else SIZE)
    network = build(name, findings=FINDING_COUNT, head=head)
    network.frozen_body = head != OWN
    write_onnx(network, tmp_path / "model.onnx", size=size, metadata={})
    assert network.training
    opened, pixels = open_onnx(tmp_path / "model.onnx"), films(size=size)
    assert max(largest_differences(network, opened, pixels=pixels)) < TOLERANCE
    network.eval()
    logit, feature = run(opened, pixels)
    with torch.inference_mode():
        expected = [one.numpy() for one in network.embed(torch.from_numpy(pixels))]
        last = network.features(network.pictures(torch.from_numpy(pixels))).numpy()
    np.testing.assert_allclose(logit, expected[1], atol=TOLERANCE, rtol=TOLERANCE)
    np.testing.assert_allclose(feature, expected[0], atol=TOLERANCE, rtol=TOLERANCE)
    assert bool(opened.channels) == (last.ndim == 4)
    if not opened.channels:
        with pytest.raises(ValueError, match="no maps"):
            maps(opened, pixels)
    else:
        last = np.moveaxis(last, 3, 1) if name in CHANNELS_LAST else last
        np.testing.assert_allclose(maps(opened, pixels), last, atol=TOLERANCE, rtol=TOLERANCE)


def test_resizing_is_a_product_with_a_constant_matrix() -> None:
    picture = torch.rand(2, 3, 50, 50, generator=torch.Generator().manual_seed(0))
    for side in (32, 50, 96):
        matrix = resizing_matrix(50, side)
        whole = functional.interpolate(picture, (side, side), mode="bilinear", antialias=True)
        torch.testing.assert_close(matrix @ picture @ matrix.T, whole)
        assert torch.allclose(matrix.sum(1), torch.ones(side))


def test_colour_and_size_are_inside_and_any_number_of_films_will_do(exported) -> None:
    network, file = exported
    opened, pixels = open_onnx(file), films(2 * BATCH + 1)
    pixels.flags.writeable = False  # as prepared films are
    assert max(largest_differences(network, opened, pixels=pixels)) < 1e-5
    together = run(opened, pixels)
    assert [len(made) for made in together] == [2 * BATCH + 1] * 2
    alone = np.concatenate([run(opened, pixels[at : at + 1])[0] for at in range(len(pixels))])
    np.testing.assert_allclose(alone, together[0], atol=1e-5)
    assert [made.shape for made in run(opened, pixels[:0])] == [(0, FINDING_COUNT), (0, 96)]
    assert opened.metadata == {"notice": "research only"}


def test_a_difference_is_seen(exported) -> None:
    network, file = exported
    other = build(SMALL, findings=FINDING_COUNT, size=96, colour="bone")
    other.load_state_dict(network.state_dict())
    assert min(largest_differences(other, open_onnx(file), pixels=films())) > TOLERANCE


def test_logits_of_a_network_for_features_alone_may_differ() -> None:
    logits, features = Differences(0.01, 1e-6), Differences(1e-6, 0.02)
    assert too_far(Differences(1e-4, 1e-4), findings=["Mass"]) == ""
    assert "logits differ from torch's by up to 0.01" in too_far(logits, findings=["Mass"])
    assert too_far(logits, findings=[FEATURES_ONLY]) == ""
    for findings in (["Mass"], [FEATURES_ONLY]):
        assert "features differ from torch's by up to 0.02 of" in too_far(
            features, findings=findings
        )
        assert "by up to nan" in too_far(Differences(0.0, float("nan")), findings=findings)


def test_features_differ_in_shares_of_their_range_whatever_the_logits_do(exported) -> None:
    network, file = exported
    other, pixels = copy.deepcopy(network), films()
    other.body.get_classifier().weight.data[:] = 0
    apart = largest_differences(other, open_onnx(file), pixels=pixels)
    assert apart.feature < TOLERANCE < apart.logit
    feature = run(open_onnx(file), pixels)[1]
    shifted = copy.deepcopy(network)
    head, moved = shifted.body.forward_head, float(np.ptp(feature)) / 4

    def forward_head(maps: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return head(maps, pre_logits=pre_logits) + (moved if pre_logits else 0)

    shifted.body.forward_head = forward_head
    apart = largest_differences(shifted, open_onnx(file), pixels=pixels)
    assert apart.logit < TOLERANCE
    assert apart.feature == pytest.approx(0.25, rel=1e-3)


def test_a_file_is_plain_onnx_and_names_no_place(exported) -> None:
    content = exported[1].read_bytes()
    onnx.checker.check_model(onnx.load_model_from_string(content), full_check=True)
    for place in (torch.__file__, __file__):
        assert str(Path(place).parent.parent).encode() not in content


def test_a_batch_that_is_no_batch_of_films_is_refused(exported) -> None:
    with pytest.raises(ValueError, match="expected 80 x 80"):
        run(open_onnx(exported[1]), films(size=64))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"no network",
        lambda content: content[:5_000],
        lambda content: content[:-1_000],
        lambda content: content.replace(b"Relu", b"Rulu"),
        lambda content: content.replace(b"films", b"\xff\xfe\xfd\xfc\xfb"),
        lambda content: content.replace(b"films", b"words"),
    ],
)
def test_damaged_and_foreign_files_are_refused(exported, damage, tmp_path: Path, capfd) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(damage(exported[1].read_bytes()))
    with pytest.raises(ValueError, match=r"model\.onnx .*export anew") as refused:
        open_onnx(file)
    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.onnx cannot be read"):
        open_onnx(tmp_path / "none.onnx")


def test_weights_in_other_files_are_not_read(exported, tmp_path: Path, monkeypatch) -> None:
    model = onnx.load(exported[1])
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look for them
    onnx.save(model, "model.onnx", save_as_external_data=True, location="weights")
    with pytest.raises(ValueError, match="External data path does not exist"):
        open_onnx(tmp_path / "model.onnx")


def test_cores_are_those_that_are_stated_or_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert usable_cores() == 7
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(12)), raising=False)
    assert usable_cores() == 12
    set_ranks(rank=0, local_rank=0, world_size=4)
    assert usable_cores() == 3


@pytest.mark.slow
def test_a_network_that_decides_by_pixels_is_refused(tmp_path: Path) -> None:
    network = build(SMALL, findings=2)
    known = network.body.forward_features
    network.body.forward_features = lambda x: known(x if x.sum() > 0 else -x)
    with pytest.raises(ValueError, match=r"ResNet cannot be .*data-dependent") as refused:
        write_onnx(network, tmp_path / "model.onnx", size=SIZE, metadata={})
    assert "\n" not in str(refused.value)
    assert [*tmp_path.iterdir()] == []


def test_no_network_is_exported_where_there_is_no_room(exported, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("lucency.core.memory._room", lambda: 0.0)
    with pytest.raises(MemoryError, match="0 MiB are left"):
        write_onnx(exported[0], tmp_path / "model.onnx", size=SIZE, metadata={})
    assert not any(tmp_path.iterdir())

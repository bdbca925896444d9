"""The weights released with the MICCAI 2024 paper, against what the released code itself computed with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import nn

from nca_edge.automaton import PRESETS, Architecture, Weights
from nca_edge.backends import NumpyBackend
from nca_edge.errors import BundleError
from nca_edge.explain import EPSILON, head_relevance
from nca_train.model import NCA
from nca_train.released import RELEASED_CLASSES, RELEASED_MEAN, RELEASED_STD, load_released

Golden = dict[str, Any]


class Released(NamedTuple):
    """The state dict after import, and the golden outputs."""

    architecture: Architecture
    weights: Weights
    golden: Golden
    images: np.ndarray
    """(8, 64, 64, 3) float32, normalised."""
    fire: np.ndarray
    """(64, 64, 64) uint8."""


@pytest.fixture(scope="module")
def released(shared: Path) -> Released:
    folder = shared / "models"
    if not (folder / "wbc_nca_matek19.pt").is_file():
        pytest.skip(f"needs the released weights in {folder}")
    architecture, weights = load_released(folder / "wbc_nca_matek19.pt")
    with np.load(folder / "wbc_nca_matek19_golden.npz", allow_pickle=False) as archive:
        golden = {name: archive[name] for name in archive.files}
    images = ((golden["images"] / 255.0 - golden["mean"]) / golden["std"]).astype(np.float32)
    return Released(architecture, weights, golden, images, np.unpackbits(golden["fire"], axis=-1))


def test_importer_reads_the_papers_sizes(released: Released) -> None:
    assert released.architecture == PRESETS["paper"]
    assert released.architecture.parameters == 86_413
    assert len(RELEASED_CLASSES) == released.architecture.classes
    np.testing.assert_allclose(RELEASED_MEAN, released.golden["mean"], atol=1e-7)
    np.testing.assert_allclose(RELEASED_STD, released.golden["std"], atol=1e-7)
    assert not released.weights["w2"][:3].any()


def test_torch_reproduces_the_golden_outputs(released: Released) -> None:
    model = NCA(released.architecture)
    model.load_weights(released.weights)
    with torch.inference_mode():
        (state,) = model.evolve(model.seed_state(torch.from_numpy(released.images)), released.fire)
        pooled = model.pool(state)
        logits = model.head(pooled)
    golden = released.golden
    assert np.abs(logits.numpy() - golden["logits"]).max() <= 1e-3
    assert np.abs(pooled.numpy() - golden["pooled"]).max() <= 1e-3
    assert np.abs(state[:2, ..., ::16].numpy() - golden["state_sample"]).max() <= 1e-3
    assert (state[..., :3].numpy() == released.images).all()


def test_numpy_reproduces_the_golden_outputs(released: Released) -> None:
    """One of the eight cells: the reference takes seconds a cell at these sizes."""
    backend = NumpyBackend(released.architecture, released.weights, released.fire)
    answer = backend(released.images[:1])
    golden = released.golden
    assert np.abs(answer.logits[0] - golden["logits"][0]).max() <= 1e-3
    assert np.abs(backend.pool(answer.state[0]) - golden["pooled"][0]).max() <= 1e-3
    assert np.abs(answer.state[0, ..., ::16] - golden["state_sample"][0]).max() <= 1e-3


def test_relevance_equals_the_golden_one(released: Released) -> None:
    golden = released.golden
    for pooled, expected, target in zip(golden["pooled"], golden["relevance"], golden["relevance_class"], strict=True):
        relevance = head_relevance(pooled, released.weights, int(target))
        assert np.abs(relevance.channels - expected).max() <= 1e-9


def _captum(weights: Weights, pooled: np.ndarray, target: int) -> np.ndarray:
    """The same relevance by captum, on a float64 head."""

    def linear(name: str) -> nn.Linear:
        weight = torch.from_numpy(weights[name].astype(np.float64))
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=torch.float64)
        layer.weight.data, layer.bias.data = weight, torch.from_numpy(weights[f"{name}_bias"].astype(np.float64))
        layer.rule = EpsilonRule(epsilon=EPSILON)
        return layer

    head = nn.Sequential(linear("head1"), nn.ReLU(), linear("head2"))
    attribution = LRP(head).attribute(torch.from_numpy(pooled.astype(np.float64))[None], target=target)
    found: np.ndarray = attribution[0].detach().numpy()
    return found


def _random_heads() -> Iterator[tuple[Weights, np.ndarray]]:
    """Heads on 16 features."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shapes = {"head1": (24, 16), "head1_bias": (24,), "head2": (7, 24), "head2_bias": (7,)}
        weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
        yield weights, rng.normal(0, 2, 16)


@pytest.mark.filterwarnings("ignore::UserWarning")  # captum's own hooks
@pytest.mark.parametrize("pools", [1, 2], ids=["one pool", "max+mean"])
def test_captum_agrees_on_random_heads(pools: int) -> None:
    for weights, pooled in _random_heads():
        for target in range(7):
            mine = head_relevance(pooled, weights, target, pools)
            of_features = _captum(weights, pooled, target)
            expected = of_features if pools == 1 else of_features[:8] + of_features[8:]
            assert mine.channels.shape == expected.shape and np.abs(mine.channels - expected).max() <= 1e-9


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_agrees_on_the_released_head(released: Released) -> None:
    pooled, target = released.golden["pooled"][3], int(released.golden["relevance_class"][3])
    mine = head_relevance(pooled, released.weights, target).channels
    assert np.abs(mine - _captum(released.weights, pooled, target)).max() <= 1e-9


def test_relevance_and_its_two_shares_add_up_to_the_logit() -> None:
    for weights, pooled in _random_heads():
        hidden = np.maximum(weights["head1"].astype(np.float64) @ pooled + weights["head1_bias"], 0)
        logits = weights["head2"].astype(np.float64) @ hidden + weights["head2_bias"]
        for target in range(7):
            relevance = head_relevance(pooled, weights, target)
            total = relevance.channels.sum() + relevance.bias_share + relevance.epsilon_share
            assert total == pytest.approx(logits[target], abs=1e-9)


def _complete() -> dict[str, torch.Tensor]:
    zeros = torch.zeros
    return {
        "p0.weight": zeros(8, 1, 3, 3), "p0.bias": zeros(8), "p1.weight": zeros(8, 1, 3, 3), "p1.bias": zeros(8),
        "fc0.weight": zeros(6, 24), "fc0.bias": zeros(6), "fc1.weight": zeros(8, 6),
        "fc2.weight": zeros(5, 8), "fc2.bias": zeros(5), "fc3.weight": zeros(4, 5), "fc3.bias": zeros(4),
    }  # fmt: skip


def test_any_size_of_the_released_kind_loads(tmp_path: Path) -> None:
    torch.save(_complete(), tmp_path / "small.pt")
    architecture, _ = load_released(tmp_path / "small.pt")
    assert (architecture.channels, architecture.hidden, architecture.head, architecture.classes) == (8, 6, 5, 4)


def _without(name: str) -> dict[str, torch.Tensor]:
    state = _complete()
    del state[name]
    return state


@pytest.mark.parametrize(
    "content",
    [
        pytest.param([1, 2], id="a list"),
        pytest.param({}, id="empty"),
        pytest.param({"p0.weight": 3}, id="a number for a tensor"),
        pytest.param({**_complete(), "p0.weight": torch.tensor(1.0)}, id="no axes"),
        pytest.param({**_complete(), "p0.weight": torch.zeros(8, 3, 3)}, id="three axes"),
        pytest.param({**_complete(), "fc1.weight": torch.zeros(7, 6)}, id="wrong shape"),
        pytest.param({**_complete(), "fc2.bias": torch.full((5,), float("nan"))}, id="not finite"),
        *(pytest.param(_without(name), id=f"no {name}") for name in _complete()),
    ],
)
def test_other_state_dicts_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "wrong.pt")
    with pytest.raises(BundleError):
        load_released(tmp_path / "wrong.pt")


@pytest.mark.parametrize(
    "raw", [b"", b"just a text", b"PK\x03\x04 a broken archive", b"\x80\x02broken"], ids=["empty", "text", "zip", "pickle"]
)
def test_other_files_are_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "wrong.pt"
    path.write_bytes(raw)
    with pytest.raises(BundleError, match=r"wrong\.pt: not a released state dict; give the \.pt file as it was published\.$"):
        load_released(path)


def test_code_in_a_state_dict_is_never_run(tmp_path: Path) -> None:
    torch.save({"p0.weight": Path("x")}, tmp_path / "wrong.pt")  # an object that weights_only does not build
    with pytest.raises(BundleError):
        load_released(tmp_path / "wrong.pt")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.pt"):
        load_released(tmp_path / "absent.pt")

"""The device of the model is the device of the work: walked whole on a device that refuses to mix with the host."""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any

import pytest
import torch

import gatelens as gl
from gatelens.bases.sae import SegmentSAE
from gatelens.errors import ConfigError
from gatelens.gate_dictionaries import InputTuning
from gatelens.models import placing
from support import other_device
from support.other_device import DEVICE, Mixed
from support.small_models import TEXT, gpt2_folder

K = {"k": 4, "d_sae": 24, "samples": 1_500}


@pytest.fixture(autouse=True)
def there_is_another(monkeypatch):
    monkeypatch.setattr(placing, "devices", lambda: [other_device.NAME, "cpu"])
    # transformer-lens asks for torch.Tensor itself where it begins at a block, which no GPU tensor fails
    module = import_module("transformer_lens.HookedTransformer")
    monkeypatch.setattr(
        module, "type", lambda x: torch.Tensor if isinstance(x, torch.Tensor) else type(x), raising=False
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return gpt2_folder(tmp_path_factory.mktemp("device") / "small")


def walk(model: Any, batches: Any, **settings: Any) -> Any:
    options = {"progress": False, "tried_at_most": 4, "min_count": 5, "max_literals": 2, "levels": "zero"}
    return gl.find_circuit(model, batches, **options, **settings)


def numbers(value: Any, place: str = "") -> dict[str, float]:
    """Every number of a report, by its place; those of time left out."""
    if isinstance(value, dict):
        parts = [numbers(v, f"{place}/{k}") for k, v in value.items() if k not in ("timing_s", "seconds", "versions")]
        return {k: v for part in parts for k, v in part.items()}
    if isinstance(value, list):
        return numbers(dict(enumerate(value)), place)
    return {place: float(value)} if isinstance(value, int | float) else {}


def same(a: Any, b: Any, tolerance: float = 1e-3) -> None:
    a, b = (numbers(found.report.to_dict()) for found in (a, b))
    assert set(a) ^ set(b) == set()
    assert len(a) > 50
    off = {k: (a[k], b[k]) for k in a if not math.isclose(a[k], b[k], rel_tol=tolerance, abs_tol=tolerance)}
    assert not off


def at_rest(value: Any) -> bool:
    return all(tensor.device.type == "cpu" for tensor in placing._tensors(value, set()))


def test_the_other_device_refuses_what_a_gpu_refuses():
    x = torch.randn(4, 3)
    y = x.to(DEVICE)
    assert y.device.type == other_device.NAME
    assert torch.equal((y @ y.T).cpu(), x @ x.T)
    for mixing in (
        lambda: y @ x.T,
        lambda: y.index_select(0, torch.tensor([1])),
        lambda: x[y[:, 0] > 0],
        lambda: torch.randn(3, device=DEVICE, generator=torch.Generator()),
    ):
        with pytest.raises(Mixed):
            mixing()
    with pytest.raises(RuntimeError, match="numpy"):
        y.numpy()
    assert torch.equal(y[torch.tensor([1])].cpu(), x[[1]]), "host indices between brackets are allowed on a GPU too"


def test_a_device_that_is_not_there_is_one_sentence(monkeypatch):
    assert gl.models.device_named("auto").type == other_device.NAME
    monkeypatch.setattr(placing, "devices", lambda: ["cpu"])
    assert gl.models.device_named("auto").type == "cpu"
    for name in ("cuda", "cuda:3", "mps", "gpu"):
        with pytest.raises(ConfigError, match=r"is not there: this machine has cpu \(or give 'auto'\)") as raised:
            gl.load_model("gpt2-mini", device=name)
        assert "\n" not in str(raised.value)


def test_there_moves_what_is_not_there_and_copies_nothing_else():
    basis = gl.Rotation(torch.eye(3), torch.zeros(3))
    wires = gl.Connector.from_dense(torch.eye(3), torch.zeros(3))
    assert placing.there({"a": basis}, "cpu")["a"] is basis
    moved = placing.there({"a": basis, "b": [basis, wires]}, DEVICE)
    assert moved["a"] is moved["b"][0], "one basis stays one"
    assert moved["a"].mean.device == moved["b"][1].bias.device == moved["b"][1].weight.device == DEVICE
    assert basis.matrix.device.type == "cpu"
    assert placing.place_of(moved) == DEVICE
    module = torch.nn.Linear(2, 2)
    assert placing.there(module, DEVICE).weight.device == DEVICE
    assert module.weight.device.type == "cpu"
    assert torch.equal(placing.host(moved)["b"][1].weight.to_dense(), torch.eye(3))


def test_rows_rest_on_the_host_or_where_they_are_asked_for(small):
    model = gl.load_model(small, device=other_device.NAME)
    assert model.W_E.device.type == other_device.NAME
    part, _ = gl.text_batches(model, TEXT, rows=(4, 2), length=16, seed=0)
    hook = "blocks.0.hook_mlp_out"
    on_host, on_device = gl.collect(model, part, hook), gl.collect(model, part, hook, device=other_device.NAME)
    assert on_host[hook].device.type == "cpu"
    assert on_device[hook].device == DEVICE
    assert torch.equal(on_device[hook].cpu(), on_host[hook])


TRANSFORMER = {
    "autoencoders": {"bases": gl.TrainedSAE(**K), "solver": gl.GramLasso(mean_wires=4, calibrate="error")},
    "tied": {"bases": gl.TrainedSAE(**K, architecture="tied"), "solver": gl.MeanJacobian(mean_wires=4), "quick": True},
    "dense": {"bases": gl.PCA(12), "solver": gl.SgdL1(mean_wires=4, epochs=1), "quick": True},
    "segment": {
        "bases": {"blocks.0.ln2.hook_normalized": SegmentSAE(**K), "blocks.0.hook_mlp_out": gl.Transcoder(**K)},
        "solver": gl.ReluOMP(min_firings=5),
        "quick": True,
    },
}


@pytest.mark.parametrize("how", TRANSFORMER)
def test_a_transformer_is_walked_there(small, how):
    found = []
    for device in (other_device.NAME, "cpu"):
        model = gl.load_model(small, device=device)
        batches = gl.text_batches(model, TEXT, rows=(16, 8), length=16, seed=0)
        found.append(walk(model, batches, segments=gl.mlp_segments(model, layers=[0]), **TRANSFORMER[how]))
        assert at_rest((found[-1].circuit.bases, found[-1].circuit.connectors))
    same(*found)
    there, here = found
    reading = there.circuit.on(there.model, "the old king went", there.held_out)
    assert str(reading) == str(here.circuit.on(here.model, "the old king went", here.held_out))
    assert "</html>" in there.page().text


def test_gate_dictionaries_are_trained_there(small):
    found = []
    for device in (other_device.NAME, "cpu"):
        model = gl.load_model(small, device=device)
        batches = gl.text_batches(model, TEXT, rows=(16, 8), length=16, seed=0)
        recipe = gl.GateDictionary(
            fan_in=3, l0=4, inputs=gl.TrainedSAE(**K), outputs=gl.TrainedSAE(**K), samples=1_000, rounds=1,
            counterfactual=gl.Counterfactual(pairs=500), refit_rows=200, batch_size=64, dense_share=0.9,
            tune_inputs=InputTuning(samples=500),
        )  # fmt: skip
        segments = gl.mlp_segments(model, layers=[0])
        # baselines, coverage and curves are measured there by "autoencoders"
        evaluation = {"ladder": {}, "baselines": [], "coverage": False, "curve_rows": 0}
        found.append(walk(model, batches, segments=segments, bases=recipe, evaluation=evaluation))
        assert at_rest((found[-1].circuit.bases, found[-1].circuit.connectors))
    same(*found, tolerance=5e-3)


def test_rotations_and_a_dense_solver_work_there(digits):
    model, fit, held_out = digits
    fit, held_out = fit.take(400), held_out.take(200)
    found = []
    for device in (DEVICE, "cpu"):
        model = placing.there(model, device)
        bases = gl.JacobianRotation(inputs=8, columns=4, iterations=2)
        evaluation = {"polish": {"epochs": 1}, "baselines": ["neurons", "virtual_weights"]}
        solver = gl.GramLasso(mean_wires=4, signed=True)
        found.append(walk(model, (fit, held_out), bases=bases, solver=solver, evaluation=evaluation))
        assert at_rest((found[-1].circuit.bases, found[-1].circuit.connectors))
    same(*found)
    assert "</html>" in found[0].page().text

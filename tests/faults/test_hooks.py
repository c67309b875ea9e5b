"""Hooks always come off the model, and its outputs are the same bits before and after any of our calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fault import HOOKS, hooks_on

from gatelens import (
    Circuit,
    Connector,
    HookedMLP,
    ReluOMP,
    Rotation,
    build_circuit,
    collect,
    evaluate,
    find_circuit,
    mlp_segments,
    splice,
    type_gates,
    views,
)
from gatelens.data import Batches


class Failing(HookedMLP):
    """Raises in the n-th forward pass, behind the first hook point, when it is told to."""

    def __init__(self) -> None:
        super().__init__((9, 6, 6, 3))
        self.passes, self.at = 0, -1
        self.error: BaseException = RuntimeError("the model's own")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        out = super().forward(x)
        if self.passes == self.at:
            raise self.error
        return out


class TheirBasis:
    """Coordinates of the user's own, which fail when `armed`."""

    armed = False

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        if TheirBasis.armed:
            raise ZeroDivisionError("the user's own")
        return x

    def decode(self, f: torch.Tensor) -> torch.Tensor:
        return f


def data() -> Batches:
    places = torch.arange(48)
    x = torch.rand(48, 9, generator=torch.Generator().manual_seed(0))
    return Batches(x, places % 3, torch.ones(48, dtype=torch.bool), places, 16, "accuracy", "48 rows")


def circuit_of(model: Any, basis: Any) -> Circuit:
    segments = mlp_segments(model)
    wires = Connector.from_dense(torch.eye(6), torch.zeros(6))
    return Circuit(segments, dict.fromkeys(HOOKS, basis), {segments[0].name: wires})


def interventions(model: Any, basis: Any) -> Any:
    acts = collect(model, data(), HOOKS)
    segment = mlp_segments(model)[0]
    wires = Connector.from_dense(torch.eye(6), torch.zeros(6))
    at = {"segment": segment, "basis_in": basis, "basis_out": basis, "x": acts[HOOKS[0]]}
    f_in, f_out = basis.encode(acts[HOOKS[0]]), basis.encode(acts[HOOKS[1]])
    return type_gates(wires, f_in, f_out, **at)


def building(model: Any, basis: Any) -> Any:
    bases = dict.fromkeys(HOOKS, basis)
    acts = collect(model, data(), HOOKS)
    return build_circuit(model, mlp_segments(model), bases, acts, ReluOMP(min_firings=1), held_out=acts)


def paging(model: Any, basis: Any) -> Any:
    acts = collect(model, data(), HOOKS)
    circuit = circuit_of(model, basis)
    gates = type_gates(circuit.connectors[circuit.segments[0].name], acts[HOOKS[0]], acts[HOOKS[1]])
    shown = Circuit(circuit.segments, circuit.bases, circuit.connectors, {circuit.segments[0].name: gates})
    return views.page(shown, acts, None, batches=data(), model=model)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "collect": lambda model, basis: collect(model, data(), HOOKS),
    "splice": lambda model, basis: model.run_with_hooks(data().inputs, fwd_hooks=splice(circuit_of(model, basis))),
    "evaluate": lambda model, basis: evaluate(model, circuit_of(model, basis), data()),
    "interventions": interventions,
    "build_circuit": building,
    "find_circuit": lambda model, basis: find_circuit(
        model, (data(), data()), bases=dict.fromkeys(HOOKS, basis), solver=ReluOMP(min_firings=1)
    ),
    "page": paging,
}


@pytest.fixture(autouse=True)
def disarmed():
    yield
    TheirBasis.armed = False


@pytest.fixture
def model():
    """Checked before and after: the same hooks (none), the same bits, the same mode."""
    model = Failing().eval()
    x = data().inputs
    before, weights = model(x), {k: v.clone() for k, v in model.state_dict().items()}
    model.passes = 0
    yield model
    model.at = -1
    assert hooks_on(model) == 0
    assert torch.equal(model(x), before)
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert not model.training
    assert not any(p.grad is not None for p in model.parameters())


@pytest.mark.filterwarnings("ignore::gatelens.errors.GateLensWarning")
@pytest.mark.parametrize("call", CALLS)
def test_after_success(model, call):
    CALLS[call](model, Rotation(torch.eye(6)))


@pytest.mark.filterwarnings("ignore::gatelens.errors.GateLensWarning")
@pytest.mark.parametrize("error", [RuntimeError("the model's own"), KeyboardInterrupt()], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("call", CALLS)
def test_after_an_error_in_the_forward_pass(model, call, error):
    model.error = error
    seen = 0
    for at in (1, 2, 4):
        model.passes, model.at = 0, at
        try:
            CALLS[call](model, Rotation(torch.eye(6)))
        except type(error):
            seen += 1
        assert hooks_on(model) == 0
    assert seen >= 1


@pytest.mark.filterwarnings("ignore::gatelens.errors.GateLensWarning")
@pytest.mark.parametrize("call", [c for c in CALLS if c != "collect"])
def test_after_an_error_in_the_users_own_basis(model, call):
    TheirBasis.armed = True
    with pytest.raises(ZeroDivisionError, match="the user's own"):
        CALLS[call](model, TheirBasis())
    assert hooks_on(model) == 0

"""Whatever is given to the front door, of whatever type, shape, dtype or device: it works, or the error is ours.

Each function is called as it should be, with one or two of its arguments replaced by something strange.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gatelens as gl
from gatelens.data import Batches
from gatelens.errors import GateLensError

HOOKS = ("hook_post.0", "hook_post.1")


class Nothing:
    """An object that is nothing in particular."""


#: made anew for each call: a generator is read once
STRANGE: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "true": lambda: True,
    "zero": lambda: 0,
    "minus one": lambda: -1,
    "huge": lambda: 10**30,
    "half": lambda: 0.5,
    "nan": lambda: float("nan"),
    "text": lambda: "strange",
    "no text": lambda: "",
    "half a character": lambda: "\ud800",
    "null character": lambda: "a\0b",
    "bytes": lambda: b"strange",
    "path": lambda: Path("/nowhere/at/all"),
    "object": Nothing,
    "class": lambda: Nothing,
    "function": lambda: lambda *arguments: None,
    "empty list": list,
    "empty dict": dict,
    "set": lambda: {1, 2},
    "list of nothing": lambda: [None],
    "list of texts": lambda: ["a", "b"],
    "ragged list": lambda: [[1, 2], [3]],
    "tuple": lambda: (1, 2, 3),
    "dict": lambda: {"a": 1},
    "dict of a hook": lambda: {HOOKS[0]: 1, HOOKS[1]: None},
    "generator": lambda: (i for i in range(3)),
    "single value": lambda: torch.tensor(1.0),
    "empty tensor": lambda: torch.zeros(0),
    "no rows": lambda: torch.zeros(0, 6),
    "no columns": lambda: torch.zeros(6, 0),
    "one dimension": lambda: torch.ones(6),
    "another width": lambda: torch.ones(5, 7),
    "three dimensions": lambda: torch.ones(2, 3, 6),
    "whole numbers": lambda: torch.ones(5, 6, dtype=torch.int32),
    "negative": lambda: -torch.ones(5, 6, dtype=torch.long),
    "flags": lambda: torch.ones(5, 6, dtype=torch.bool),
    "complex": lambda: torch.ones(5, 6, dtype=torch.complex64),
    "double": lambda: torch.ones(5, 6, dtype=torch.float64),
    "half precision": lambda: torch.ones(5, 6, dtype=torch.bfloat16),
    "not a number": lambda: torch.full((5, 6), torch.nan),
    "another device": lambda: torch.ones(5, 6, device="meta"),
    "sparse": lambda: torch.eye(6).to_sparse(),
    "array": lambda: np.ones((5, 6)),
    "array of objects": lambda: np.array([Nothing()], dtype=object),
    "array of texts": lambda: np.array(["a", "b"]),
    "dict of tensors": lambda: {h: torch.ones(5, 7) for h in HOOKS},
    "dict on another device": lambda: {h: torch.ones(5, 6, device="meta") for h in HOOKS},
    "dict of whole numbers": lambda: {h: torch.ones(5, 6, dtype=torch.long) for h in HOOKS},
    "dict of several lengths": lambda: {HOOKS[0]: torch.ones(5, 6), HOOKS[1]: torch.ones(4, 6)},
}


@functools.cache
def model() -> Any:
    return gl.HookedMLP((8, 6, 6, 3)).eval().requires_grad_(False)


def data() -> Batches:
    x = torch.rand(30, 8, generator=torch.Generator().manual_seed(0))
    return Batches(x, torch.arange(30) % 3, batch_size=15)


@functools.cache
def acts() -> Any:
    return gl.collect(model(), data(), HOOKS)


@functools.cache
def circuit() -> Any:
    bases = {h: gl.Rotation(torch.eye(6)) for h in HOOKS}
    return gl.build_circuit(model(), gl.mlp_segments(model()), bases, acts(), gl.GramLasso(mean_wires=2))


@functools.cache
def reading() -> Any:
    return circuit().on(model(), torch.rand(3, 8))


def wires() -> Any:
    return circuit().connectors[circuit().segments[0].name]


#: function -> arguments that it works with
CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    "load_model": lambda: {"name": "/nowhere/model", "fold_ln": True, "bridge": False, "device": "cpu", "dtype": "float32"},
    "image_batches": lambda: {"source": "digits", "path": None, "rows": (4, 2), "seed": 0, "batch_size": 4},
    "text_batches": lambda: {"model": None, "source": torch.ones(5, 6, dtype=torch.long), "rows": (2, 1), "length": 6, "seed": 0, "attention_mask": None, "held_out": None, "batch_size": 2, "column": "text"},
    "mlp_segments": lambda: {"model": model(), "layers": None, "mlp_in": "mlp_in", "frozen_norm": False},
    "collect": lambda: {"model": model(), "batches": data(), "points": HOOKS[0], "dtype": "float32", "shard_rows": 8, "progress": False},
    "feature_jacobian": lambda: {"segment": circuit().segments[0], "x": torch.rand(4, 6), "basis_in": gl.Rotation(torch.eye(6)), "basis_out": gl.Rotation(torch.eye(6))},
    "jacobian_columns": lambda: {"segment": circuit().segments[0], "x": torch.rand(4, 6)},
    "sparsity": lambda: {"values": torch.rand(4, 6), "eps": (0.1,)},
    "type_gates": lambda: {"connector": wires(), "f_in": acts()[HOOKS[0]], "f_out": acts()[HOOKS[1]], "seed": 0},
    "build_circuit": lambda: {"model": model(), "segments": circuit().segments, "bases": circuit().bases, "acts": acts(), "solver": gl.GramLasso(mean_wires=2), "gates": False, "held_out": None, "info": None},
    "evaluate": lambda: {"model": model(), "circuit": circuit(), "held_out": data(), "acts": acts(), "means": None, "baselines": None, "name": None, "seed": 0},
    "splice": lambda: {"circuit": circuit(), "segments": None, "how": "connectors", "means": None, "keep": None, "hooks": None},
    "find_circuit": lambda: {"model": model(), "batches": (data(), data()), "segments": None, "bases": circuit().bases, "solver": gl.GramLasso(mean_wires=2), "seed": 0, "progress": False},
}  # fmt: skip
#: recipes and solvers, whose settings have defaults
RECIPES = [
    name
    for room in ("basis", "bases", "solvers", "edits", "gate_dictionaries")
    for name in gl.FRONT_DOOR[room]
    if dataclasses.is_dataclass(getattr(gl, name)) and name not in ("Rotation", "PretrainedSAE")
]
SHORT: dict[str, Any] = {"d_sae": 8, "k": 2, "samples": 200, "batch_size": 20}
FEATURES: Callable[[], dict[str, Any]] = lambda: {"f_in": acts()[HOOKS[0]], "f_out": acts()[HOOKS[1]]}  # noqa: E731
FITTED: Callable[[], dict[str, Any]] = lambda: {"segments": circuit().segments, "acts": acts()}  # noqa: E731
#: values, their methods, and what other rooms show -> arguments that they work with
VALUES: dict[str, tuple[Callable[[], Callable[..., Any]], Callable[[], dict[str, Any]]]] = {
    "Circuit": (lambda: gl.Circuit, lambda: {"segments": circuit().segments, "bases": circuit().bases, "connectors": circuit().connectors}),
    "Circuit.load": (lambda: gl.Circuit.load, lambda: {"folder": "/nowhere"}),
    "circuit.save": (lambda: circuit().save, lambda: {"folder": "saved"}),
    "circuit.on": (lambda: circuit().on, lambda: {"model": model(), "prompt": torch.rand(1, 8)}),
    "circuit.gate": (lambda: circuit().gate, lambda: {"out": 0}),
    "Segment": (lambda: gl.Segment, lambda: {"hook_in": HOOKS[0], "hook_out": HOOKS[1], "forward": model(), "d_in": 6, "d_out": 6}),
    "Rotation": (lambda: gl.Rotation, lambda: {"matrix": torch.eye(6)}),
    "Connector.from_dense": (lambda: gl.Connector.from_dense, lambda: {"weight": torch.eye(6), "bias": torch.zeros(6)}),
    "HookedMLP": (lambda: gl.HookedMLP, lambda: {"sizes": (8, 6, 3), "seed": 0}),
    "label": (lambda: gl.label, lambda: {"circuit": circuit(), "acts": acts(), "tokenizer": None, "cache": None}),
    "views.gate": (lambda: gl.views.gate, lambda: {"gate": circuit().gates[circuit().segments[0].name][0]}),
    "circuit.check_model": (lambda: circuit().check_model, lambda: {"model": model()}),
    "Circuit.from_pretrained": (lambda: gl.Circuit.from_pretrained, lambda: {"name": "/nowhere", "segments": None, "revision": None}),
    "reading.set": (lambda: reading().set, lambda: {"changes": {0: 1.0}, "at": 0, "segment": None, "frozen": False, "target": None, "companions": False}),
    "reading.contrast": (lambda: reading().contrast, lambda: {"other": torch.rand(3, 8), "tokens": None, "most": 2}),
    "firing.why": (lambda: reading().at(0, 0).why, lambda: {"k": 2, "share": 0.9, "keep_error": True}),
    "views.schema": (lambda: gl.views.schema, lambda: {"name": "circuit"}),
    "views.compare": (lambda: gl.views.compare, lambda: {"first": circuit(), "second": circuit(), "names": ("a", "b")}),
    "views.prompt_page": (lambda: gl.views.prompt_page, lambda: {"reading": reading()}),
    "tracking": (lambda: gl.tracking, lambda: {"tracker": Nothing()}),
    "PairBypass.fit": (lambda: gl.PairBypass().fit, FITTED),
    "GramLasso.fit": (lambda: gl.GramLasso(mean_wires=2, signed=True).fit, FEATURES),
    "ReluOMP.fit": (lambda: gl.ReluOMP().fit, FEATURES),
    "SgdL1.fit": (lambda: gl.SgdL1(epochs=1).fit, FEATURES),
    "PCA.fit": (lambda: gl.PCA(3).fit, FITTED),
    "TrainedSAE.fit": (lambda: gl.TrainedSAE(trainer="sparse", **SHORT).fit, FITTED),
    "TrainedSAE.train": (lambda: gl.TrainedSAE(trainer="sparse", **SHORT).train, lambda: {"x": acts()[HOOKS[0]]}),
    "Transcoder.fit": (lambda: gl.Transcoder(**SHORT).fit, FITTED),
    "plant_network": (lambda: gl.planted.plant_network, lambda: {"width_in": 96, "d_in": 20, "width_out": 8, "d_out": 8, "steps": 2}),
    "ranks": (lambda: gl.invariants.ranks, lambda: {"jacobians": torch.rand(4, 6, 6)}),
    "views.page": (lambda: gl.views.page, lambda: {"circuit": circuit(), "acts": acts(), "report": None, "batches": None, "model": None, "title": "t", "max_cards": 1, "trace": None}),
    "views.card": (lambda: gl.views.card, lambda: {"gate": circuit().gates[circuit().segments[0].name][0], "segment": "s"}),
    "views.known": (lambda: gl.views.known, lambda: {"circuit": circuit(), "acts": acts(), "segment": None, "model": None, "batches": None}),
    "views.live": (lambda: gl.views.live, lambda: {"circuit": circuit(), "model": model(), "prompt": torch.rand(1, 8), "acts": None, "batches": None}),
    "views.layer_map": (lambda: gl.views.layer_map, lambda: {"connector": wires(), "outs": None}),
    "views.heat_maps": (lambda: gl.views.heat_maps, lambda: {"matrices": {"a": torch.rand(3, 4)}, "what": "w", "size": 20}),
    "views.jacobian_maps": (lambda: gl.views.jacobian_maps, lambda: {"segment": circuit().segments[0], "basis_in": gl.Rotation(torch.eye(6)), "basis_out": gl.Rotation(torch.eye(6)), "held_out": torch.rand(4, 6)}),
    "Html.save": (lambda: gl.views.card(circuit().gates[circuit().segments[0].name][0]).save, lambda: {"path": "card.html"}),
    "circuit.push_to_hub": (lambda: circuit().push_to_hub, lambda: {"repo": "not a name", "private": False}),
    "circuit.segment": (lambda: circuit().segment, lambda: {"name": None}),
    "Activations.open": (lambda: gl.Activations.open, lambda: {"folder": "/nowhere"}),
    "wires": (lambda: wires().pre, lambda: {"f_in": torch.rand(3, 6)}),
    "wires.parents": (lambda: wires().parents, lambda: {"out": 0}),
    "wires.save": (lambda: wires().save, lambda: {"folder": "wires"}),
    "Connector.load": (lambda: gl.Connector.load, lambda: {"folder": "wires"}),
    "Connector.from_rows": (lambda: gl.Connector.from_rows, lambda: {"rows": [(torch.tensor([0]), torch.ones(1))], "bias": torch.zeros(1), "m": 3}),
    "Report.from_dict": (lambda: gl.Report.from_dict, lambda: {"values": {}}),
    "reading.at": (lambda: reading().at, lambda: {"position": 0, "out": 0, "segment": None}),
    "reading.firings": (lambda: reading().firings, lambda: {"position": 0, "segment": None, "most": 2}),
    "reading.target": (lambda: reading().target, lambda: {"wanted": 0, "position": 0}),
    "segment.check": (lambda: circuit().segments[0].check, lambda: {"x": acts()[HOOKS[0]], "y": acts()[HOOKS[1]], "tolerance": 1e-3}),
    "segment.outputs": (lambda: circuit().segments[0].outputs, lambda: {"x": acts()[HOOKS[0]]}),
    "Neurons.fit_at": (lambda: gl.Neurons().fit_at, lambda: {"hook": HOOKS[0], **FITTED()}),
    "PretrainedSAE.fit": (lambda: gl.PretrainedSAE("gpt2-mini").fit, FITTED),
    "Noise": (lambda: gl.planted.Noise, lambda: {"dropped": 0.1, "spurious": 1.0, "leak": 0.0, "multiplicative": 0.1}),
    "check_basis": (lambda: gl.planted.check_basis, lambda: {"basis": gl.Rotation(torch.eye(6)), "width": 6, "rows": 5}),
    "noisy_model": (lambda: gl.stability.noisy_model, lambda: {"model": model(), "relative": 0.1, "seed": 0}),
    "fine_tuned": (lambda: gl.stability.fine_tuned, lambda: {"model": model(), "batches": data(), "steps": 1, "lr": 1e-4}),
    "segment_ranks": (lambda: gl.invariants.segment_ranks, lambda: {"segment": circuit().segments[0], "x": torch.rand(3, 6), "metric": "raw"}),
    "whiten_jacobians": (lambda: gl.invariants.whiten_jacobians, lambda: {"jacobians": torch.rand(4, 6, 6), "x": torch.rand(9, 6), "y": torch.rand(9, 6)}),
    "match_directions": (lambda: gl.stability.match_directions, lambda: {"a": torch.eye(6), "b": torch.eye(6)}),
}  # fmt: skip


def only_our_errors(act: Callable[[], Any], what: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
        except GateLensError:
            return
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error


@pytest.mark.filterwarnings("ignore::gatelens.errors.GateLensWarning")
@pytest.mark.parametrize("name", CALLS)
def test_calls_work_as_they_are(name):
    if name == "load_model":
        return
    getattr(gl, name)(**CALLS[name]())


@pytest.mark.parametrize("name", CALLS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_functions_take_it_or_say_why(name, data):
    arguments = CALLS[name]()
    for what in data.draw(st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True), "which"):
        arguments[what] = STRANGE[data.draw(st.sampled_from(sorted(STRANGE)), what)]()
    only_our_errors(lambda: getattr(gl, name)(**arguments), name)


@pytest.mark.parametrize("name", RECIPES)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_recipes_take_it_or_say_why(name, data):
    recipe = getattr(gl, name)
    settings_of = [p for p in inspect.signature(recipe).parameters if p != "self"]
    if not settings_of:
        return
    what, value = data.draw(st.sampled_from(settings_of)), data.draw(st.sampled_from(sorted(STRANGE)))
    only_our_errors(lambda: recipe(**{what: STRANGE[value]()}), f"{name}({what}={value})")


@pytest.mark.parametrize("name", VALUES)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_values_take_it_or_say_why(name, tmp_path_factory, data):
    reached, arguments = VALUES[name][0](), VALUES[name][1]()
    what, value = data.draw(st.sampled_from(sorted(arguments))), data.draw(st.sampled_from(sorted(STRANGE)))
    arguments[what] = STRANGE[value]()
    with contextlib.chdir(tmp_path_factory.getbasetemp()):  # a text is the name of a folder to some of them
        only_our_errors(lambda: reached(**arguments), f"{name}({what}={value})")


@functools.cache
def mini() -> Any:
    return gl.load_model("gpt2-mini")


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(st.lists(st.text(st.characters(codec=None, exclude_categories=[]), max_size=40), min_size=1, max_size=3))
def test_any_prompt_gives_its_own_tokens(prompts):
    """Surrogates, control characters and special tokens written out among them."""

    def act() -> None:
        found = gl.collect(mini(), prompts, "blocks.0.hook_mlp_out")
        assert found.rows == len(found.token) > 0
        assert mini().tokenizer.bos_token_id not in found.token.tolist()

    only_our_errors(act, repr(prompts))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(
    st.recursive(
        st.integers(-200, 5000) | st.none() | st.floats() | st.text(max_size=3), lambda x: st.lists(x, max_size=5)
    )
)
def test_any_nest_of_numbers_is_ids_or_refused(nest):
    only_our_errors(lambda: gl.collect(mini(), nest, "blocks.0.hook_mlp_out"), repr(nest))
    only_our_errors(lambda: gl.text_batches(mini(), nest, length=4), repr(nest))


def test_the_sizes_of_a_callers_own_function_are_its_own():
    from jaxtyping import Float, jaxtyped

    rotation = gl.Rotation(torch.eye(3))
    with jaxtyped("context"):
        assert isinstance(torch.zeros(2, 4), Float[torch.Tensor, "rows d"])
        assert rotation.encode(torch.zeros(5, 3)).shape == (5, 3)
        assert isinstance(torch.zeros(2, 4), Float[torch.Tensor, "rows d"])


def test_what_is_missing_or_unknown_is_named():
    with pytest.raises(GateLensError, match=r"collect: missing a required argument: 'points'.*It takes"):
        gl.collect(model(), data())
    with pytest.raises(GateLensError, match=r"mlp_segments: got an unexpected keyword argument 'layer'"):
        gl.mlp_segments(model(), layer=1)
    with pytest.raises(GateLensError, match=r"GramLasso: `mean_wires` must be .*; got str 'many'"):
        gl.GramLasso(mean_wires="many")


def test_a_setting_may_have_its_old_name():
    with pytest.warns(match="mean_wires"):
        assert gl.GramLasso(mean_edges=3).mean_wires == 3

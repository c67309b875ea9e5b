"""Rows about what is set around a call: torch's default type and device, autocast, inference mode, draws; and whose a path is."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault import Fault, Injected, config_values, files_in, forty_rows, tiny_model
from torch import Tensor

import gatelens as gl
from gatelens.cli.main import main
from gatelens.data import Batches
from gatelens.errors import ConfigError, DataError, ModelError, SegmentError, SolverError, StoreError
from gatelens.models.training import Training
from gatelens.pipeline import read_config, run
from gatelens.pipeline.config import check_config

# what is set around a call


def walked(fit: Batches, held_out: Batches) -> dict[str, Tensor]:
    """Figures of every room, on a small model."""
    model = Training(epochs=1).fit(tiny_model(), fit)
    segments = gl.mlp_segments(model)
    acts = gl.collect(model, fit, segments)
    (segment,) = segments
    x = acts[segment.hook_in]
    recipes = {
        "pca": gl.PCA(),
        "rotation": gl.JacobianRotation(inputs=8, sweeps=1, iterations=5),
        "sae": gl.TrainedSAE(d_sae=12, k=2, samples=400, trainer="sparse"),
    }
    bases = {name: recipe.fit(segments, acts) for name, recipe in recipes.items()}
    circuit = gl.build_circuit(model, segments, gl.Neurons().fit(segments, acts), acts, gl.GramLasso(mean_wires=2))
    report = gl.evaluate(model, circuit, held_out)
    connector = circuit.connectors[segment.name]
    return {
        "acts": x,
        "jacobian": gl.feature_jacobian(segment, x[:4]),
        "columns": gl.jacobian_columns(segment, x[:4]),
        "rotation": bases["rotation"][segment.hook_in].matrix,
        "pca": bases["pca"][segment.hook_in].matrix,
        "sae": bases["sae"][segment.hook_in].W_dec,
        "wires": connector.weight.to_dense(),
        "report": torch.tensor(report.model["clean"], dtype=torch.float64, device="cpu"),
        "page": torch.tensor(len(gl.views.page(circuit, acts, report).text) // 1000, device="cpu"),
        "prompt": gl.load_model("gpt2-mini").W_U[:4, :4],
    }


@functools.cache
def plain() -> dict[str, Tensor]:
    return walked(forty_rows(), forty_rows(2))


@contextlib.contextmanager
def set_to(change: Callable[[Any], Any], value: Any, back: Any) -> Iterator[None]:
    change(value)
    try:
        yield
    finally:
        change(back)


def state() -> dict[str, Any]:
    """What is set, and where each library's draws go on from."""
    return {
        "draws of torch": torch.get_rng_state().tolist(),
        "draws of numpy": np.random.get_state()[1].tolist(),  # noqa: NPY002
        "type": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
    }


def same_within(around: Callable[[], Any]) -> Any:
    """The figures are those of a fresh process, and what was set is set still; nobody's draws go on from elsewhere."""

    def inject(folder: Path) -> Injected:
        def act() -> dict[str, Tensor]:
            expected, rows = plain(), (forty_rows(), forty_rows(2))
            with around():
                before = state()
                found = walked(*rows)
                assert state() == before
            for name, value in expected.items():
                assert found[name].dtype == value.dtype, name
                assert torch.allclose(found[name], value, rtol=1e-4, atol=1e-5, equal_nan=True), name
            return found

        return Injected(act)

    return inject


def in_a_transform(folder: Path) -> Injected:
    model = tiny_model()

    def act() -> Any:
        return torch.func.vmap(lambda x: gl.collect(model, x[None], ["hook_post.0"])["hook_post.0"])(torch.randn(3, 8))

    return Injected(act)


def told_what_was_put_aside(folder: Path) -> Injected:
    """A user's own model that fails without autocast: their traceback, and our sentence."""

    class Half(type(tiny_model())):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.bfloat16() @ torch.eye(8, dtype=torch.float32))

    def act() -> Any:
        with torch.autocast("cpu"):
            return gl.collect(Half((8, 6, 6, 3)), forty_rows(), ["hook_post.0"])

    return Injected(act)


# whose a path is


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Root may do everything: for a moment this process is somebody else."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def open_to_others(folder: Path) -> bool:
    """Whether somebody else may go there."""
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))


def as_nobody(act: Callable[[Path], Any], mode: int = 0o555) -> Any:
    """What a user does below a folder that is not theirs; nothing in it is changed."""

    def inject(folder: Path) -> Injected:
        if not os.geteuid() and not open_to_others(Path(sys.prefix)):
            pytest.skip("the environment lies where root alone may read")
        place = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others on the way already
        (place / "theirs").mkdir()
        (place / "theirs" / "a.jsonl").write_text('{"text": "the dog"}\n')
        (place / "theirs" / "c.yaml").write_text(json.dumps(config_values()))
        (place / "mine").write_text("a file")
        place.chmod(0o755)
        plain()  # what is imported lies where root alone may read

        def acting() -> Any:
            before = files_in(place)
            (place / "theirs").chmod(mode)
            try:
                with nobody():
                    return act(place / "theirs")
            finally:
                (place / "theirs").chmod(0o755)
                assert files_in(place) == before
                shutil.rmtree(place)

        return Injected(acting)

    return inject


def page() -> Any:
    return gl.views.Html("a page")


def verb(*arguments: Any) -> None:
    """A verb that must stop before any work: what it says is on standard error already."""
    assert main([str(a) for a in arguments]) == 2
    raise StoreError("as it said")


def without_a_home(place: Path) -> Any:
    from unittest import mock

    with mock.patch.dict(os.environ, {"HOME": str(place), "XDG_CACHE_HOME": "", "GATELENS_CACHE": ""}):
        return gl.load_model("smollm2")


READ_ONLY, CLOSED = (
    ("is read-only for this user", "Give another folder"),
    ("Permission denied", "Change its permissions"),
)

ROWS = [
    Fault(44, f"figures under {name}", same_within(around), **more)
    for name, around, more in (
        ("float64", lambda: set_to(torch.set_default_dtype, torch.float64, torch.float32), {}),
        ("float16", lambda: set_to(torch.set_default_dtype, torch.float16, torch.float32), {}),
        ("autocast", lambda: torch.autocast("cpu", dtype=torch.bfloat16), {}),
        ("inference mode", torch.inference_mode, {}),
        ("no gradients", torch.no_grad, {}),
        ("a default device", lambda: set_to(torch.set_default_device, "meta", None), {}),
        ("deterministic algorithms", lambda: set_to(torch.use_deterministic_algorithms, True, False), {}),
    )
] + [
    Fault(44, "a call within vmap", in_a_transform, ConfigError, ("one of torch.func's transforms", "call it outside")),
    Fault(
        44,
        "a model that autocast alone makes fit",
        told_what_was_put_aside,
        RuntimeError,
        ("collect ran without what was set around it: torch.autocast('cpu')",),
        exit=1,
    ),
    Fault(19, "page in a folder of others", as_nobody(lambda at: page().save(at / "new" / "p.html")), StoreError, READ_ONLY),
    Fault(19, "page below a file", as_nobody(lambda at: page().save(at.parent / "mine" / "p.html")), StoreError, ("could not be written", "is a folder")),
    Fault(
        19,
        "activations in a folder of others",
        as_nobody(lambda at: gl.collect(tiny_model(), forty_rows(), ["hook_post.0"], store=at / "acts")),
        StoreError,
        READ_ONLY,
    ),
    Fault(
        19,
        "a prompt's page in a folder of others",
        as_nobody(lambda at: verb("prompt", at / "run", "a", "--out", at / "p.html")),
        StoreError,
        READ_ONLY,
        guard={"gatelens.cli.prompt.check_target": Path},
    ),
    Fault(19, "a run in a folder of others", as_nobody(lambda at: run(check_config(config_values()), at / "run")), StoreError, READ_ONLY),
    Fault(19, "a home of others", as_nobody(without_a_home), ModelError, ("could not be kept in", "GATELENS_CACHE")),
    Fault(19, "a config of others", as_nobody(lambda at: read_config(at / "c.yaml"), mode=0o700), PermissionError, CLOSED, exit=2),
    *(
        Fault(19, f"{name} of others", as_nobody(act, mode=0o700), StoreError, CLOSED, guard=guard)
        for name, act, guard in (
            ("a circuit", lambda at: gl.Circuit.load(at / "c"), {}),
            ("a model", lambda at: gl.load_model(at / "m"), {"gatelens.errors.door.refused": lambda *arguments: None}),
            ("an SAE", lambda at: gl.PretrainedSAE(str(at / "s")).load("hook_post.0"), {}),
            ("texts", lambda at: gl.text_batches(gl.load_model("gpt2-mini"), at / "a.jsonl"), {}),

        )
    ),
]  # fmt: skip


# what is given in a form that nobody tried before


class Dropping(type(tiny_model())):
    """Noise while it is trained."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.nn.functional.dropout(x, 0.5, self.training))


def in_training(folder: Path) -> Injected:
    model, plain_model, hooks = Dropping((8, 6, 6, 3)).train(), tiny_model(), ["hook_post.0"]

    def after(acts: Any) -> None:
        assert torch.equal(acts[hooks[0]], gl.collect(plain_model, forty_rows(), hooks)[hooks[0]])
        assert all(module.training for module in model.modules())

    return Injected(lambda: gl.collect(model, forty_rows(), hooks), after)


def segments_twice(folder: Path) -> Injected:
    (segment,) = gl.mlp_segments(tiny_model())
    acts = gl.collect(tiny_model(), forty_rows(), [segment])
    bases = gl.Neurons().fit([segment], acts)

    def after(circuit: Any) -> None:
        assert len(circuit.segments) == 1

    return Injected(
        lambda: gl.build_circuit(
            tiny_model(), [segment, segment], bases, acts, gl.GramLasso(mean_wires=2), gates=False
        ),
        after,
    )


def rows_given(given: Callable[[], Any]) -> Any:
    return lambda folder: Injected(lambda: gl.collect(tiny_model(), given(), ["hook_post.0"]))


ROWS += [
    Fault(46, "a model that is being trained", in_training, guard={"gatelens.models.calling.evaluating": contextlib.nullcontext}),
    Fault(46, "a segment given twice", segments_twice),
    Fault(
        46,
        "a masked array",
        rows_given(lambda: np.ma.masked_array(np.ones((5, 8), "float32"), mask=np.eye(5, 8) > 0)),
        DataError,
        ("hides 5 of its values", ".filled"),
    ),
    Fault(
        46,
        "a nested tensor",
        rows_given(lambda: torch.nested.nested_tensor([torch.ones(8), torch.ones(8)])),
        DataError,
        ("expected a dense tensor", "a nested one"),
    ),
    Fault(
        46,
        "layers by name",
        lambda folder: Injected(lambda: gl.mlp_segments(gl.load_model("gpt2-mini"), layers={3: "x"})),
        SegmentError,
        ("layers must be whole numbers", "{3: 'x'}"),
    ),
    Fault(
        46,
        "a seed of numpy's",
        lambda folder: Injected(
            lambda: gl.text_batches(gl.load_model("gpt2-mini"), [f"The dog {i} saw the girl." for i in range(9)], length=8, seed=np.uint32(3)),
        ),
    ),
    *(
        Fault(46, f"{value} wires", lambda folder, value=value: Injected(lambda: gl.GramLasso(mean_wires=value)), SolverError, ("must be positive",))
        for value in (float("nan"), float("inf"))
    ),
]  # fmt: skip

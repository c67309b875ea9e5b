"""Rows about whole runs: the same bytes twice, no network, Ctrl-C, and other people's code that fails."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from fault import HOOKS, Counting, Fault, Injected, config_values, files_in, forty_rows, hooks_on

from gatelens import PretrainedSAE, collect, image_batches, load_model, text_batches
from gatelens.errors import HubError
from gatelens.pipeline import run, source
from gatelens.pipeline.config import check_config

# 26: the same seed twice


def twice(folder: Path) -> Injected:
    def act() -> None:
        for name in "ab":
            run(check_config(config_values()), folder / name, until="gates")

    def after(result: None) -> None:
        a, b = files_in(folder / "a"), files_in(folder / "b")
        assert len(a) > 10
        assert {n for n in a if a[n] != b.get(n)} == set()
        assert set(a) == set(b)

    return Injected(act, after)


# 27: no network


def without_network(act: Any) -> Any:
    """`act` where every connection fails; nobody may sleep on it for long, to try again and again."""

    def inject(folder: Path) -> Injected:
        def refused(*arguments: Any, **options: Any) -> Any:
            raise OSError("the network is unreachable")

        def acting() -> None:
            slept: list[float] = []
            names = {"HF_HOME": str(folder / "none"), "HF_HUB_CACHE": "", "GATELENS_DATA": ""}
            with (
                mock.patch.dict("os.environ", names),
                mock.patch.object(socket, "create_connection", refused),
                mock.patch.object(socket.socket, "connect", refused),
                mock.patch.object(time, "sleep", slept.append),
            ):
                try:
                    act()
                finally:
                    assert sum(slept) < 10, "the user had to wait"

        return Injected(acting)

    return inject


def local_files_need_no_network(folder: Path) -> Injected:
    """The walk from local data, with every connection refused."""

    def act() -> Any:
        with mock.patch.object(socket.socket, "connect", side_effect=AssertionError("a connection was tried")):
            return run(check_config(config_values()), folder, until="collect")

    return Injected(act)


# 28: Ctrl-C


def interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(folder: Path) -> Injected:
    model = Counting(at=3, then=interrupt)
    whole = collect(Counting(), forty_rows(), HOOKS)

    def act() -> None:
        try:
            collect(model, forty_rows(), HOOKS, store=folder, shard_rows=8)
        finally:
            assert hooks_on(model) == 0
            assert sorted(p.name for p in folder.glob("*.safetensors")) == [
                f"shard-00000{i}.safetensors" for i in (0, 1)
            ]
            before = model.passes
            acts = collect(model, forty_rows(), HOOKS, store=folder, shard_rows=8)
            assert model.passes - before == 3 + 2  # of five shards, two were there, which are compared with the model
            assert all(torch.equal(acts[hook], whole[hook]) for hook in HOOKS)

    return Injected(act)


# 29: the user's own code

FAILING = """
import dataclasses, torch

@dataclasses.dataclass(frozen=True)
class Recipe:
    def fit(self, segments, acts):
        return {1 / 0: None}

@dataclasses.dataclass(frozen=True)
class Solver:
    def fit(self, f_in, f_out):
        return 1 / 0
"""


def failing(section: str, name: str) -> Any:
    def inject(folder: Path) -> Injected:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "their_module.py").write_text(FAILING)
        values = {**config_values(), section: {"use": f"their_module:{name}"}}
        models: list[Any] = []
        load = source.model_from

        def remember(*arguments: Any) -> Any:
            models.append(load(*arguments))
            return models[-1]

        def act() -> None:
            sys.modules.pop("their_module", None)
            with (
                mock.patch.object(sys, "path", [str(folder), *sys.path]),
                mock.patch.object(source, "model_from", remember),
            ):
                try:
                    run(check_config(values), folder / "run")
                except ZeroDivisionError as error:
                    places = []
                    trace = error.__traceback__
                    while trace:
                        places.append(trace.tb_frame.f_code.co_filename)
                        trace = trace.tb_next
                    assert places[-1].endswith("their_module.py")  # the traceback is theirs
                    raise
                finally:
                    assert models
                    assert sum(hooks_on(model) for model in models) == 0

        return Injected(act)

    return inject


ROWS = [
    Fault(26, "the same seed twice", twice),
    Fault(
        27,
        "MNIST without network",
        without_network(lambda: image_batches("mnist")),
        HubError,
        ("out of reach", "data.path"),
    ),
    Fault(
        27,
        "model without network",
        without_network(lambda: load_model("gpt2")),
        HubError,
        ("gpt2", "out of reach", "the path of a folder"),
        guard={"gatelens.models.load._check_in_reach": lambda repository: None},
    ),
    Fault(
        27,
        "SAE without network",
        without_network(lambda: PretrainedSAE("gpt2-small-mlp-out-v5-32k", "blocks.0.hook_mlp_out").load()),
        HubError,
        ("out of reach", "local folder"),
    ),
    Fault(
        27,
        "text without network",
        without_network(lambda: text_batches(lambda texts: texts, "NeelNanda/c4-10k")),
        HubError,
        ("NeelNanda/c4-10k", "local"),
    ),
    Fault(27, "local files need no network", local_files_need_no_network),
    Fault(
        28,
        "ctrl-c while collecting",
        interrupted,
        KeyboardInterrupt,
        ("stopped; 2 of 5 shards of activations are kept in",),
        exit=130,
    ),
    Fault(29, "a recipe of the user fails", failing("bases", "Recipe"), ZeroDivisionError, ("room 'bases'",), exit=1),
    Fault(
        29, "a solver of the user fails", failing("solver", "Solver"), ZeroDivisionError, ("room 'connect'",), exit=1
    ),
]

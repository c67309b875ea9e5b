"""Rows about models, hook points, dictionaries and data: what is met before, or while, anything is computed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault import HOOKS, Counting, Fault, Injected, config_values, forty_rows, tiny_model

from gatelens import (
    Connector,
    GramLasso,
    PretrainedSAE,
    ReluOMP,
    Rotation,
    TrainedSAE,
    build_circuit,
    collect,
    feature_jacobian,
    mlp_segments,
    store,
    text_batches,
    type_gates,
)
from gatelens.bases.sae.fitness import check_fit
from gatelens.codes import Codes
from gatelens.data import Batches
from gatelens.errors import (
    BasisError,
    ConfigError,
    DataError,
    HookNameError,
    ModelError,
    NonFiniteError,
    SegmentError,
    SolverError,
    StoreError,
    TooLargeError,
)
from gatelens.pipeline.config import check_config
from gatelens.pipeline.loading import with_weights
from gatelens.solvers.gram import Gram


def on_use(act: Any) -> Any:
    """A fault that needs nothing on the disk."""
    return lambda folder: Injected(act)


# 3: NaN and infinity


def nan_in_one_row(value: float) -> Any:
    def act() -> None:
        batches = forty_rows()
        batches.inputs[19, 0] = value  # batch 2, row 3
        collect(tiny_model(), batches, HOOKS)

    return on_use(act)


# 4, 5: features that never fire


def sparse_features(rows: int = 400, dead: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Six input features; output 0 is input 1, output 1 never fires."""
    generator = torch.Generator().manual_seed(0)
    f_in = torch.rand(rows, 6, generator=generator) * (torch.rand(rows, 6, generator=generator) < 0.3)
    if dead is not None:
        f_in[:, dead] = 0
    return f_in, torch.stack([f_in[:, 1], torch.zeros(rows)], 1)


def constant_feature(folder: Path) -> Injected:
    f_in, f_out = sparse_features()

    def act() -> Any:
        wires = ReluOMP(max_fan_in=2).fit(f_in, f_out)
        return wires, type_gates(wires, f_in, f_out), Codes.of(f_out)

    def after(result: Any) -> None:
        wires, gates, codes = result
        assert wires.fan_in().tolist() == [1, 0]
        assert str(gates[1].kind) == "not_read"
        assert gates[1].why
        assert (gates[1].precision, gates[1].firings) == (None, 0)
        assert (codes.frequency() == 0).tolist() == [False, True]
        assert all(torch.isfinite(v).all() for v in (codes.typical(), codes.mean_square()))

    return Injected(act, after)


def dead_parent(folder: Path) -> Injected:
    f_in, f_out = sparse_features(dead=3)
    weight = torch.zeros(2, 6)
    weight[0, 1], weight[0, 3] = 1.0, 5.0  # a wire from a feature that never fires

    def act() -> Any:
        fitted = [solver.fit(f_in, f_out) for solver in (ReluOMP(max_fan_in=4), GramLasso(mean_wires=2))]
        return fitted, type_gates(Connector.from_dense(weight, torch.zeros(2)), f_in, f_out)[0]

    def after(result: Any) -> None:
        fitted, gate = result
        assert all(3 not in wires.parents(0)[0].tolist() for wires in fitted)
        assert 3 not in gate.excite
        assert "never on" in gate.note
        assert (Codes.of(f_in).frequency() == 0).nonzero().flatten().tolist() == [3]

    return Injected(act, after)


# 6, 7, 8


def wrong_width(folder: Path) -> Injected:
    model = Counting(at=1, then=forward_pass_is_a_mistake)
    segments = mlp_segments(model)
    bases = {HOOKS[0]: Rotation(torch.eye(5)), HOOKS[1]: Rotation(torch.eye(6))}
    acts = {hook: torch.zeros(4, 6) for hook in HOOKS}
    return Injected(lambda: build_circuit(model, segments, bases, acts, ReluOMP()))


def forward_pass_is_a_mistake() -> None:
    raise AssertionError("there was a forward pass")


# 9: an SAE that does not fit


def rows_of_a_hook() -> torch.Tensor:
    return torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) + 3


def foreign_sae(folder: Path) -> Injected:
    """Explains less than the mean does."""
    return Injected(lambda: check_fit(Rotation(torch.eye(6)[:2]), HOOKS[0], rows_of_a_hook()))


def poor_sae(folder: Path) -> Injected:
    """Explains something, much less than was published."""
    x = rows_of_a_hook()
    basis = Rotation(torch.eye(6)[:4], x.mean(0))
    return Injected(lambda: check_fit(basis, HOOKS[0], x, expected_variance=0.95))


# 10: another tokenizer


class Vocabulary:
    def __init__(self, *words: str):
        self.words = words

    def get_vocab(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words)}


def other_tokenizer(folder: Path) -> Injected:
    model = tiny_model()
    model.tokenizer = Vocabulary("a", "b")
    collect(model, forty_rows(), HOOKS, store=folder)
    model.tokenizer = Vocabulary("b", "a")
    return Injected(lambda: collect(model, forty_rows(), HOOKS, store=folder))


# 12: BOS and padding


class Tokens:
    bos_token_id, pad_token_id = 0, 9


def bos_and_padding(folder: Path) -> Injected:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    settings = {
        "n_layers": 1,
        "d_model": 8,
        "n_ctx": 8,
        "d_head": 4,
        "n_heads": 2,
        "d_mlp": 8,
        "d_vocab": 10,
        "seed": 0,
    }
    model = HookedTransformer(HookedTransformerConfig(**settings, act_fn="relu", device="cpu"))
    tokens = torch.tensor([[0, 1, 2, 3], [0, 4, 9, 9], [0, 5, 6, 9], [0, 7, 8, 1]])

    def act() -> Any:
        fit, _ = text_batches(Tokens(), tokens, rows=(3, 1))
        return fit, collect(model, fit, ["blocks.0.hook_mlp_out"])

    def after(result: Any) -> None:
        fit, acts = result
        kept = [t for row in fit.inputs.tolist() for t in row if t not in (0, 9)]
        assert acts.token.tolist() == kept
        assert acts.rows == fit.rows == len(kept)
        assert f"{len(kept)} rows" in repr(fit)

    return Injected(act, after)


# 13: too little


def nothing(folder: Path) -> Injected:
    empty = torch.zeros(0, 8)
    none = torch.zeros(0, dtype=torch.long)
    return Injected(lambda: Batches(empty, none, none.bool(), none, name="an empty file"))


# 15: pickles


class Program:
    def __reduce__(self) -> Any:
        return (Path("ran").touch, ())


def pickled_weights(folder: Path) -> Injected:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tiny_model().state_dict(), folder / "weights.pt")
    return Injected(lambda: with_weights(tiny_model(), folder / "weights.pt"))


def pickle_named_safetensors(folder: Path) -> Injected:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "w.safetensors").write_bytes(pickle.dumps(Program()))

    return Injected(lambda: store.load_tensors(folder / "w.safetensors"))


def numpy_objects(folder: Path) -> Injected:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "w.npy", np.array([Program()], dtype=object), allow_pickle=True)
    return Injected(lambda: store.load_tensors(folder / "w.npy"))


def pickled_sae(folder: Path) -> Injected:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text("{}")
    torch.save({"W_dec": torch.ones(1)}, folder / "sae.pt")
    return Injected(lambda: PretrainedSAE(str(folder)).load(HOOKS[0]))


# 22: what would not fit


class Wide:
    """32,768 features, without a matrix of them."""

    class cfg:
        d_in, d_sae = 6, 32_768

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("32,768 features were computed")

    decode = encode


def whole_jacobian(folder: Path) -> Injected:
    segment = mlp_segments(tiny_model())[0]
    return Injected(lambda: feature_jacobian(segment, torch.zeros(1, 6), Wide(), Wide()))


def wide_gram(folder: Path) -> Injected:
    empty = torch.zeros(2, 32_768).to_sparse_csr()
    return Injected(lambda: GramLasso().fit(empty, empty))


# 25: half precision


def half_precision_sums(folder: Path) -> Injected:
    def act() -> Any:
        ones = [torch.full((4096, 1), 100.0, dtype=d) for d in (torch.float16, torch.bfloat16)]
        return [(Gram.of(x, x), Codes.of(x).typical()) for x in ones]

    def after(records: Any) -> None:
        for gram, typical in records:
            assert float(gram.in_in) == 4096 * 10_000.0
            assert gram.in_in.dtype == torch.float64
            assert float(typical) == 100.0

    return Injected(act, after)


def storage_type(folder: Path) -> Injected:
    def after(result: Any) -> None:
        from gatelens.store.shards import read_shards

        stored = read_shards(folder, "activations")
        assert stored.config["dtype"] == "float16"
        assert stored.read(0)[HOOKS[0]].dtype == torch.float16
        assert result[HOOKS[0]].dtype == torch.float32

    return Injected(lambda: collect(tiny_model(), forty_rows(), HOOKS, store=folder, dtype="float16"), after)


def too_big_for_half() -> None:
    batches = forty_rows()
    batches.inputs[9] = 3e5
    collect(tiny_model(), batches, HOOKS, dtype="float16")


ROWS = [
    Fault(
        3,
        "NaN in an input",
        nan_in_one_row(torch.nan),
        NonFiniteError,
        ("hook_post.0", "batch 2, row 3", "NaN or infinity"),
        guard={"gatelens.activations.capture._check_finite": lambda *arguments: None},
    ),
    Fault(3, "infinity in an input", nan_in_one_row(torch.inf), NonFiniteError, ("batch 2, row 3",)),
    Fault(4, "feature that never fires", constant_feature),
    Fault(5, "dead parent", dead_parent),
    Fault(
        6,
        "wrong hook name",
        on_use(lambda: collect(tiny_model(), forty_rows(), ["hook_pots.0"])),
        HookNameError,
        ("'hook_pots.0'", "hook_post.0, hook_post.1", "gatelens hooks CONFIG"),
        guard={"gatelens.activations.collecting.check_hook_names": lambda *arguments: None},
    ),
    Fault(
        7,
        "layer out of range",
        on_use(lambda: mlp_segments(tiny_model(), layers=[1])),
        SegmentError,
        ("layer 1 is out of range", "0..0"),
        guard={"gatelens.segments.hidden.chosen_layers": lambda layers, count: list(layers or range(count))},
    ),
    Fault(
        7,
        "layer out of range in a hook",
        on_use(lambda: collect(tiny_model(), forty_rows(), ["hook_post.7"])),
        HookNameError,
        ("0..1",),
    ),
    Fault(
        8,
        "dictionary of another width",
        wrong_width,
        BasisError,
        ("hook_post.0", "width 5", "width 6"),
        guard={
            "gatelens.gate_dictionaries.doors.check_width": lambda *arguments: None,
            "gatelens.basis.trial._width": lambda *arguments: None,  # it is not tried at all
        },
    ),
    Fault(9, "SAE of another hook", foreign_sae, BasisError, ("explains -", "less than their mean does")),
    Fault(9, "SAE of another loading", poor_sae, None, ("warning:", "explains 0.6", "expected 0.950")),
    Fault(10, "another tokenizer", other_tokenizer, StoreError, ("model.tokenizer: stored",)),
    Fault(
        11,
        "unknown release",
        on_use(lambda: PretrainedSAE("gpt2-smal-resid-mid-v5-32k").load(HOOKS[0])),
        BasisError,
        ("did you mean 'gpt2-small-resid-mid-v5-32k'",),
    ),
    Fault(
        11,
        "unknown config key",
        on_use(lambda: check_config({**config_values(), "solvr": {}})),
        ConfigError,
        ("unknown key 'solvr'", "did you mean 'solver'"),
    ),
    Fault(12, "BOS and padding", bos_and_padding),
    Fault(13, "no data", nothing, DataError, ("an empty file is empty", "at least one example")),
    Fault(
        13,
        "k above the dictionary",
        on_use(lambda: TrainedSAE(k=100, d_sae=24).train(torch.rand(10, 6))),
        BasisError,
        ("k = 100", "dictionary of 24"),
    ),
    Fault(
        13,
        "rows that do not match",
        on_use(lambda: ReluOMP().fit(torch.zeros(3, 2), torch.zeros(4, 2))),
        SolverError,
        ("3 rows", "4"),
    ),
    Fault(
        15,
        "pickled weights",
        pickled_weights,
        ModelError,
        ("weights.pt is, or may hold, a Python pickle", "weights_only=True"),
    ),
    Fault(
        15,
        "pickle named safetensors",
        pickle_named_safetensors,
        StoreError,
        ("can run any program", "weights_only=True"),
        guard={"gatelens.store.tensor_files.refuse_pickle": lambda path: None},
    ),
    Fault(15, "numpy array of objects", numpy_objects, StoreError, ("w.npy is, or may hold, a Python pickle",)),
    Fault(15, "pickled SAE", pickled_sae, BasisError, ("sae.pt is, or may hold, a Python pickle", "weights_only=True")),
    Fault(
        22, "whole Jacobian of wide dictionaries", whole_jacobian, TooLargeError, ("32768", "4.0 GiB", "active_block")
    ),
    Fault(
        22,
        "Gram matrix of wide dictionaries",
        wide_gram,
        TooLargeError,
        ("32768 -> 32768", "GiB", "ReluOMP"),
    ),
    Fault(25, "half precision sums", half_precision_sums),
    Fault(25, "type of storage is recorded", storage_type),
    Fault(
        25,
        "too large for float16",
        on_use(too_big_for_half),
        NonFiniteError,
        ("more than float16 can hold", "float32"),
    ),
]

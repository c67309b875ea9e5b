"""Rows about positions and hook points: padding, special tokens, ids, prompts under a splice, shapes, what hides a hook."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from fault import Fault, Injected
from torch import Tensor
from torch.nn import functional as F
from transformer_lens import HookedRootModule, HookedTransformer, HookedTransformerConfig
from transformer_lens.hook_points import HookPoint

from gatelens import (
    Circuit,
    Connector,
    GramLasso,
    Rotation,
    Segment,
    build_circuit,
    collect,
    evaluate,
    load_model,
    mlp_segments,
    splice,
    text_batches,
)
from gatelens.data import Batches
from gatelens.errors import ConfigError, DataError, ModelError, SegmentError
from gatelens.models.fingerprint import active_hooks
from support.small_models import gpt2_folder

HOOKS = ("blocks.0.hook_mlp_out", "blocks.0.hook_resid_post")
BOS, PAD, EOS, WORDS = 0, 9, 8, 7
SENTENCES = [[BOS, 1, 2, 3, 4], [BOS, 5, 6], [BOS, 7, 1, 2]]


class Tokens:
    """A tokenizer that only names its special tokens."""

    bos_token_id, pad_token_id, eos_token_id, padding_side = BOS, PAD, EOS, "right"
    all_special_ids = (BOS, PAD, EOS)


@functools.cache
def small(direction: str = "causal", positions: str = "standard", shared: bool = False) -> Any:
    """A random transformer of one block; `shared` has one id for BOS, EOS and PAD, as GPT-2 does."""
    cfg = HookedTransformerConfig(
        n_layers=2, d_model=8, n_ctx=12, d_head=4, n_heads=2, d_mlp=8, d_vocab=10, act_fn="relu", device="cpu", seed=1,
        attention_dir=direction, positional_embedding_type=positions, rotary_dim=4 if positions == "rotary" else None,
    )  # fmt: skip
    model = HookedTransformer(cfg).eval().requires_grad_(False)
    torch.manual_seed(0)
    for value in model.parameters():
        value.add_(0.3 * torch.randn_like(value))
    model.tokenizer = Tokens()
    if shared:
        model.tokenizer.pad_token_id = model.tokenizer.eos_token_id = BOS
    return model


@functools.cache
def mini() -> Any:
    return load_model("gpt2-mini")


def padded(side: str, pad: int = PAD) -> Tensor:
    longest = max(map(len, SENTENCES))
    fill = [[pad] * (longest - len(s)) for s in SENTENCES]
    return torch.tensor([f + s if side == "left" else s + f for f, s in zip(fill, SENTENCES, strict=True)])


def alone(model: Any, ids: Sequence[int]) -> dict[str, Tensor]:
    """What the model itself makes of a sentence, without GateLens."""
    side, model.tokenizer.padding_side = model.tokenizer.padding_side, "right"
    _, cache = model.run_with_cache(torch.tensor([list(ids)]))
    model.tokenizer.padding_side = side
    return {hook: cache[hook][0, 1:] for hook in HOOKS}


def rows_of_the_sentence(model: Callable[[], Any], given: Callable[[], Any]) -> Any:
    """Rows of padded sentences, each against the sentence alone; BOS and padding are no rows."""

    def inject(folder: Path) -> Injected:
        def after(acts: Any) -> None:
            assert acts.rows == sum(len(s) - 1 for s in SENTENCES)
            for i, sentence in enumerate(SENTENCES):
                assert acts.token[acts.document == i].tolist() == sentence[1:]
                for hook, expected in alone(model(), sentence).items():
                    found = acts[hook][acts.document == i]
                    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()

        return Injected(lambda: collect(model(), given(), HOOKS), after)

    return inject


def by_hand(side: str) -> Batches:
    ids = padded(side)
    keep = (ids != BOS) & (ids != PAD)
    return Batches(ids, torch.where(keep, ids, -100), keep, torch.arange(3)[:, None].expand(ids.shape), 2, "ce")


def left_tokenizer() -> Any:
    model = small("causal", "rotary")
    model.tokenizer.padding_side = "left"
    return model


class Pooled(HookedRootModule):
    """Reads every position, takes no mask, and has no tokenizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.hook_out = torch.nn.Embedding(10, 4), HookPoint()
        self.setup()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        return self.hook_out(x + x.mean(1, keepdim=True))


def encoder(side: str) -> Any:
    """A bidirectional encoder with CLS and SEP: its attention mask is passed on; positions that padding moves are refused."""
    from transformer_lens import HookedEncoder

    cfg = HookedTransformerConfig(
        n_layers=1, d_model=8, n_ctx=12, d_head=4, n_heads=2, d_mlp=8, d_vocab=10, act_fn="gelu", device="cpu",
        attention_dir="bidirectional",
    )  # fmt: skip
    model = HookedEncoder(cfg)
    torch.manual_seed(0)
    for value in model.parameters():
        value.data.normal_(0, 0.3)
    model.tokenizer = Tokens()
    hook = "blocks.0.mlp.hook_post"

    def inject(folder: Path) -> Injected:
        def after(acts: Any) -> None:
            _, cache = model.run_with_cache(torch.tensor([SENTENCES[1]]))
            found, expected = acts[hook][acts.document == 1], cache[hook][0, 1:]
            assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()

        act = lambda: collect(model, padded(side), hook)  # noqa: E731
        return Injected(act, after) if side == "right" else Injected(act)

    return inject


def bridge(folder: Path) -> Injected:
    """A TransformerBridge reads no padding on the left either, and what its own modules record is no hook of the user's."""
    model = load_model(gpt2_folder(folder / "model"), bridge=True)
    ids, hook = [0, 5, 6, 7], "blocks.1.hook_mlp_out"
    given = {"input_ids": torch.tensor([[0, 0, 0, *ids], [0, 9, 8, 7, 6, 5, 4]])}
    given["attention_mask"] = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [1] * 7])

    def after(acts: Any) -> None:
        _, cache = model.run_with_cache(torch.tensor([ids]))
        assert torch.allclose(acts[hook][acts.document == 0], cache[hook][0, 1:], rtol=1e-3, atol=1e-4)
        assert active_hooks(model) == {}

    return Injected(lambda: collect(model, given, hook), after)


def inner_special(folder: Path) -> Injected:
    """BOS and EOS inside rows of a concatenated tensor are no rows, and nobody predicts them."""
    tokens = torch.tensor([[BOS, 1, 2, EOS, BOS, 3, 4, 5], [BOS, 6, EOS, BOS, 7, 1, EOS, BOS]] * 2)

    def after(parts: Any) -> None:
        for part in parts:
            words = (part.inputs != BOS) & (part.inputs != EOS)
            assert torch.equal(part.keep, words)
            known = part.targets != -100
            assert not torch.isin(part.targets[known], torch.tensor([BOS, EOS])).any()
            assert torch.equal(known[:, :-1], words[:, 1:])

    return Injected(lambda: text_batches(small(), tokens, rows=(2, 2)), after)


def foreign_id(value: int, given: Callable[[Tensor], Any]) -> Any:
    def act() -> Any:
        tokens = torch.tensor([[BOS, 1, value, 3], [BOS, 4, 5, 6]])
        return given(tokens)

    return lambda folder: Injected(act)


def added_pad(folder: Path) -> Injected:
    """A [PAD] that was added to the tokenizer lies beyond the embedding; what is padding is never looked up."""

    def act() -> Any:
        tokenizer = Tokens()
        tokenizer.pad_token_id = 10
        model = small("causal", "rotary")
        model.tokenizer, before = tokenizer, model.tokenizer
        try:
            return collect(model, padded("left", 10), HOOKS)
        finally:
            model.tokenizer = before

    def after(acts: Any) -> None:
        assert acts.token.tolist() == [t for s in SENTENCES for t in s[1:]]
        expected = alone(small("causal", "rotary"), SENTENCES[1])[HOOKS[1]]
        assert torch.allclose(acts[HOOKS[1]][acts.document == 1], expected, rtol=1e-4, atol=1e-5)

    return Injected(act, after)


def documents_in_one_window(folder: Path) -> Injected:
    """Without a BOS between them, the last word of a document predicts nothing of the next one."""
    texts = [f"the dog {word} it" for word in ("saw", "had", "was", "and", "not", "big")]

    def after(parts: Any) -> None:
        for part in parts:
            assert (part.document[:, 1:] != part.document[:, :-1]).any()
            known = part.targets[:, :-1] >= 0
            assert (part.document[:, 1:] == part.document[:, :-1])[known].all()
            assert torch.equal(part.targets[:, :-1][known], part.inputs[:, 1:][known])

    return Injected(lambda: text_batches(mini(), texts, length=8, prepend_bos=False, held_out=texts[::-1]), after)


def no_bos_of_its_own(folder: Path) -> Injected:
    """A model whose sentences do not begin with BOS (`default_prepend_bos`) gets windows that do not either."""
    model = mini()

    def act() -> Any:
        model.cfg.default_prepend_bos = False
        try:
            return text_batches(model, "gpt2-mini-sample", rows=(4, 2), length=16)[0], collect(model, "He was", HOOKS)
        finally:
            model.cfg.default_prepend_bos = True

    def after(result: Any) -> None:
        fit, acts = result
        assert not (fit.inputs[:, 0] == model.tokenizer.bos_token_id).all()
        assert acts.token.tolist() == model.to_tokens("He was", prepend_bos=False)[0].tolist()

    return Injected(act, after)


# 40: a prompt under a splice


def prompt_under_splice(made: Callable[[Circuit, Path], Circuit]) -> Any:
    def inject(folder: Path) -> Injected:
        model = mini()
        fit, held_out = text_batches(model, "gpt2-mini-sample", rows=(12, 6), length=32, packed=True)
        segments = mlp_segments(model, 1)
        acts = collect(model, fit, segments)
        bases = {hook: Rotation(torch.eye(256)) for hook in acts}
        circuit = build_circuit(model, segments, bases, acts, GramLasso(mean_wires=4, signed=True), gates=False)
        known = held_out.targets >= 0

        def ce(hooks: Any) -> float:
            logits = model.run_with_hooks(held_out.inputs, fwd_hooks=hooks)
            return float(F.cross_entropy(logits[known], held_out.targets[known]))

        def after(result: Any) -> None:
            expected, found, everywhere = result
            assert abs(found - expected) < 1e-4 * expected
            assert abs(everywhere - expected) > 1e-4 * expected  # BOS matters here

        def act() -> Any:
            expected = evaluate(model, circuit, held_out).all_replaced["ce"]
            all_of_them = splice(circuit, keep=torch.ones_like(held_out.keep))
            return expected, ce(splice(made(circuit, folder))), ce(all_of_them)

        return Injected(act, after)

    return inject


def reloaded(circuit: Circuit, folder: Path) -> Circuit:
    circuit.save(folder / "circuit")
    return Circuit.load(folder / "circuit")


def segments_of_ones_own(circuit: Circuit, folder: Path) -> Circuit:
    segments = [Segment(s.hook_in, s.hook_out, s.forward, s.d_in, s.d_out) for s in circuit.segments]
    acts = {s.hook_in: torch.randn(9, 256) for s in segments} | {s.hook_out: torch.randn(9, 256) for s in segments}
    wires = build_circuit(mini(), segments, circuit.bases, acts, GramLasso(mean_wires=1, signed=True), gates=False)
    return Circuit(wires.segments, circuit.bases, circuit.connectors)


def spliced_with(what: Any, **options: Any) -> Any:
    """A splice of what the circuit lacks, or of flags for other positions."""

    def act() -> Any:
        model, tokens = small(), padded("right")
        segments = mlp_segments(model)
        acts = collect(model, tokens, segments)
        bases = {hook: Rotation(torch.eye(8)) for hook in acts}
        circuit = build_circuit(model, segments[:1], bases, acts, GramLasso(mean_wires=2, signed=True), gates=False)
        return model.run_with_hooks(tokens, fwd_hooks=splice(circuit, **{what: options.get("given", segments[1])}))

    return lambda folder: Injected(act)


def in_half(mlp_in: str, how: Any) -> Any:
    """A circuit of rotations and exact wires stands in a model of bfloat16 as the model itself."""

    def inject(folder: Path) -> Injected:
        model = copy.deepcopy(small()).bfloat16()
        model.cfg.dtype = torch.bfloat16
        segments = mlp_segments(model, mlp_in=mlp_in)
        acts = collect(model, padded("right"), segments)
        bases = {hook: Rotation(torch.eye(8)) for hook in acts}
        circuit = build_circuit(model, segments, bases, acts, GramLasso(mean_wires=2, signed=True), gates=False)

        def after(logits: Tensor) -> None:
            assert logits.dtype == torch.bfloat16
            words = (padded("right") != BOS) & (padded("right") != PAD)
            expected = small().run_with_hooks(padded("right"), fwd_hooks=splice(circuit, how=how, keep=words))
            assert (logits.float() - expected).norm() / expected.norm() < 5e-2

        return Injected(lambda: model.run_with_hooks(padded("right"), fwd_hooks=splice(circuit, how=how)), after)

    return inject


# 34: shapes at hook points


class Shapes(HookedRootModule):
    """Holds what comes in several layouts at its hook points."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(10, 6)
        self.hook_first, self.hook_pooled, self.hook_pair, self.hook_rows = (HookPoint() for _ in range(4))
        self.setup()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        self.hook_first(x.transpose(0, 1))
        self.hook_pooled(x.mean(1))
        self.hook_pair(x @ x.transpose(1, 2))
        return self.hook_rows(x)


class Convolution(HookedRootModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.hook_map, self.hook_flat = torch.nn.Conv2d(1, 3, 2), HookPoint(), HookPoint()
        self.setup()

    def forward(self, x: Tensor) -> Tensor:
        return self.hook_flat(self.hook_map(self.layer(x)).flatten(1))


def tokens_of(n: int, length: int) -> Batches:
    ids = torch.randint(10, (n, length), generator=torch.Generator().manual_seed(0))
    return Batches(ids, ids, batch_size=n, metric="ce")


def layout(hook: str, n: int, length: int) -> Any:
    return lambda folder: Injected(lambda: collect(Shapes(), tokens_of(n, length), hook))


def images(hook: str) -> Any:
    def act() -> Any:
        x = torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        return collect(Convolution(), Batches(x, torch.arange(5)), hook)

    return lambda folder: Injected(act)


def heads_side_by_side(folder: Path) -> Injected:
    model = small()
    block = model.blocks[1].attn
    W, b = block.W_O.flatten(0, 1), block.b_O
    segment = Segment("blocks.1.attn.hook_z", "blocks.1.hook_attn_out", lambda x: x @ W + b, 8, 8, reshape="heads")

    def after(acts: Any) -> None:
        segment.check(acts[segment.hook_in], acts[segment.hook_out], 1e-5)
        wires = {segment.name: Connector.from_dense(W.T.contiguous(), b, activation="identity")}
        circuit = Circuit([segment], {h: Rotation(torch.eye(8)) for h in acts}, wires)  # exact: nothing may change
        tokens = padded("right")
        found = model.run_with_hooks(tokens, fwd_hooks=splice(circuit))
        assert torch.allclose(found, model(tokens), rtol=1e-4, atol=1e-4)

    return Injected(lambda: collect(model, padded("right"), segment), after)


def across_attention(hook_in: str, hook_out: str) -> Any:
    segment = Segment(hook_in, hook_out, lambda x: x, 8, 8)
    return lambda folder: Injected(lambda: collect(small(), padded("right"), segment))


def walked(hook_in: str, hook_out: str, forward: Callable[[Tensor], Tensor] = lambda x: x) -> Any:
    """A circuit of a segment of one's own, put into the model."""

    def act() -> Any:
        model, segment = small(), Segment(hook_in, hook_out, forward, 8, 8)
        acts = collect(model, padded("right"), segment)
        bases = {hook: Rotation(torch.eye(8)) for hook in acts}
        wires = {segment.name: Connector.from_dense(torch.eye(8), torch.zeros(8), activation="identity")}
        model.run_with_hooks(padded("right"), fwd_hooks=splice(Circuit([segment], bases, wires)))
        return build_circuit(model, segment, bases, acts, GramLasso(mean_wires=2, signed=True), gates=False)

    return lambda folder: Injected(act)


def built(hook_in: str, hook_out: str, forward: Callable[[Tensor], Tensor]) -> Any:
    def act() -> Any:
        segment = Segment(hook_in, hook_out, forward, 8, 8)
        acts = collect(small(), padded("right"), segment)
        bases = {hook: Rotation(torch.eye(8)) for hook in acts}
        return build_circuit(small(), segment, bases, acts, GramLasso(mean_wires=2, signed=True), gates=False)

    return lambda folder: Injected(act)


def hook_left_on(folder: Path) -> Injected:
    model = copy.deepcopy(small())
    model.add_hook("blocks.1.hook_mlp_out", lambda value, hook: 0 * value)
    return Injected(lambda: mlp_segments(model))


def attached_sae(hook: str) -> Any:
    def act() -> Any:
        from sae_lens import SAE, HookedSAETransformer
        from sae_lens.saes.standard_sae import StandardSAEConfig

        model = HookedSAETransformer(small().cfg)
        cfg = StandardSAEConfig(d_in=8, d_sae=16)
        cfg.metadata.hook_name = hook
        model.add_sae(SAE.from_dict(cfg.to_dict()))
        model.tokenizer = Tokens()
        return collect(model, padded("right"), hook)

    return lambda folder: Injected(act)


def layers(chosen: Any, expected: Sequence[int]) -> Any:
    def after(segments: Any) -> None:
        assert segments is None or [s.hook_out for s in segments] == [f"blocks.{i}.hook_mlp_out" for i in expected]

    return lambda folder: Injected(lambda: mlp_segments(mini(), chosen), after)


def at(hook: str, model: Any = small) -> Any:
    return lambda folder: Injected(lambda: collect(model(), padded("right"), hook))


ROWS = [
    *(
        Fault(36, f"{how} from {mlp_in} in bfloat16", in_half(mlp_in, how))
        for mlp_in in ("mlp_in", "resid_mid")
        for how in ("connectors", "dictionaries")
    ),
    Fault(
        40,
        "flags for other positions",
        spliced_with("keep", given=torch.ones(2, 3)),
        DataError,
        ("[2, 3]", "[3, 5, 8]"),
    ),
    Fault(
        40,
        "flags that are none",
        spliced_with("keep", given=torch.rand(3, 5)),
        DataError,
        ("splice: keep", "true and false"),
    ),
    Fault(40, "flags of 0 and 1", spliced_with("keep", given=torch.ones(3, 5))),
    Fault(
        40,
        "a segment of no connector",
        spliced_with("segments"),
        ConfigError,
        ("unknown part of the circuit", "blocks.1"),
    ),
    Fault(34, "true for a layer", layers(True, ()), SegmentError, ("layers must be whole numbers", "got True")),
    Fault(
        34,
        "a tensor of flags for layers",
        layers(torch.tensor([True, False]), ()),
        SegmentError,
        ("layers must be whole numbers",),
    ),
    *(
        Fault(31, f"padding on the {side} {what}", rows_of_the_sentence(model, given))
        for side in ("left", "right")
        for what, model, given in (
            ("in ids", small, lambda side=side: padded(side)),
            ("in ids of a rotary model", lambda: small("causal", "rotary"), lambda side=side: padded(side)),
            (
                "under a mask",
                small,
                lambda side=side: {"input_ids": padded(side, 3), "attention_mask": (padded(side, PAD) != PAD).long()},
            ),
            ("where PAD is BOS", lambda: small("causal", "standard", True), lambda side=side: padded(side, BOS)),
            ("in batches put together by hand", small, lambda side=side: by_hand(side)),
            ("of a tokenizer that pads on the left", left_tokenizer, lambda side=side: padded(side)),
            ("of a bidirectional model", lambda: small("bidirectional", "rotary"), lambda side=side: padded(side)),
        )
    ),
    Fault(31, "padding behind a sentence of an encoder", encoder("right")),
    Fault(
        31,
        "padding before a sentence of an encoder",
        encoder("left"),
        ModelError,
        ("a padded sentence differs from the sentence alone", "HookedEncoder", "pad on the other side"),
    ),
    Fault(31, "padding before a sentence of a bridge", bridge),
    Fault(31, "rows of several lengths", rows_of_the_sentence(small, lambda: SENTENCES)),
    Fault(
        31,
        "a model that reads its padding",
        lambda folder: Injected(
            lambda: collect(
                Pooled(),
                Batches(padded("right"), padded("right"), mask=padded("right") != PAD),
                "hook_out",
            )
        ),
        ModelError,
        ("hook_out: a padded sentence differs from the sentence alone by", "attention_mask"),
        guard={"gatelens.activations.capture.prove_padding": lambda *arguments, **how: True},
    ),
    Fault(31, "BOS and EOS inside rows", inner_special),
    Fault(31, "a model without BOS", no_bos_of_its_own),
    Fault(31, "documents in one window without BOS", documents_in_one_window),
    Fault(
        31,
        "rows that begin with several PAD which is BOS",
        lambda folder: Injected(lambda: collect(small("causal", "standard", True), padded("left", BOS), HOOKS)),
        None,
        ("the last of each run is taken for the BOS", "Give the attention_mask"),
    ),
    *(
        Fault(
            31,
            f"token id {value} in {what}",
            foreign_id(value, given),
            DataError,
            (f"token id {value} in row 0, position 2", "0..9", says),
        )
        for value, says in ((-100, "labels that are left out"), (10, "vocabulary"), (-1, "vocabulary"))
        for what, given in (
            ("tensors", lambda tokens: text_batches(small(), tokens)),
            ("collect", lambda tokens: collect(small(), tokens, HOOKS)),
        )
    ),
    Fault(
        31,
        "token ids beyond the model in batches",
        foreign_id(99, lambda tokens: collect(small(), Batches(tokens, tokens, metric="ce"), HOOKS)),
        DataError,
        ("token id 99 in row 0, position 2", "0..9"),
        guard={"gatelens.data.given.check_readable": lambda *arguments: None},
    ),
    Fault(31, "a PAD beyond the embedding", added_pad),
    Fault(
        31,
        "rows longer than the model",
        lambda folder: Injected(lambda: collect(small(), torch.ones(2, 13, dtype=torch.long), HOOKS)),
        DataError,
        ("13 tokens", "at most 12"),
    ),
    Fault(
        34,
        "heads without a word",
        at("blocks.1.attn.hook_z"),
        SegmentError,
        ("blocks.1.attn.hook_z", "[3, 5, 2, 4]", 'reshape="heads"', "8 numbers"),
        guard={"gatelens.activations.capture.rows_of": lambda value, shape, name, heads: value.flatten(0, 1)},
    ),
    Fault(34, "queries without a word", at("blocks.0.attn.hook_q"), SegmentError, ("2 heads of 4", 'reshape="heads"')),
    Fault(
        34,
        "attention patterns",
        at("blocks.0.attn.hook_pattern"),
        SegmentError,
        ("hook_pattern", "several positions", "hook_z"),
    ),
    Fault(
        34,
        "attention scores",
        at("blocks.1.attn.hook_attn_scores"),
        SegmentError,
        ("hook_attn_scores", "several positions"),
    ),
    Fault(34, "heads side by side", heads_side_by_side),
    Fault(34, "positions first", layout("hook_first", 3, 5), SegmentError, ("[5, 3, 6]", "another order", "transpose")),
    Fault(
        34,
        "positions first in a square batch",
        layout("hook_first", 4, 4),
        SegmentError,
        ("[4, 1, 6]", "another order"),
        guard={"gatelens.activations.capture.check_order": lambda *arguments: None},
    ),
    Fault(
        34,
        "pooled over positions",
        layout("hook_pooled", 3, 5),
        SegmentError,
        ("hook_pooled", "[3, 6]", "3 examples, 5 positions"),
    ),
    Fault(34, "feature maps of images", images("hook_map"), SegmentError, ("[5, 3, 3, 3]", "flatten(1)")),
    Fault(34, "flat feature maps", images("hook_flat")),
    Fault(
        34,
        "attention within a segment",
        across_attention("blocks.1.hook_resid_pre", "blocks.1.hook_attn_out"),
        SegmentError,
        ("the attention of block 1", "several positions"),
    ),
    Fault(
        34,
        "attention of the next block within a segment",
        across_attention("blocks.0.hook_resid_mid", "blocks.1.hook_mlp_out"),
        SegmentError,
        ("the attention of block 1",),
    ),
    Fault(
        34,
        "segments of a model with a hook on it",
        hook_left_on,
        SegmentError,
        ("the model has hooks on it (blocks.1.hook_mlp_out)", "reset_hooks"),
    ),
    Fault(
        34,
        "an end before its start",
        across_attention("blocks.1.hook_resid_mid", "blocks.0.hook_mlp_out"),
        SegmentError,
        ("its end lies before its start", "block 0 before block 1"),
    ),
    Fault(
        34,
        "an end before its start within a block",
        walked("blocks.0.hook_mlp_out", "blocks.0.hook_resid_mid"),
        SegmentError,
        ("nothing passed through its start before its end",),
    ),
    Fault(
        34,
        "a forward that the model does not compute",
        built("blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out", lambda x: 2 * x),
        SegmentError,
        ("forward misses what the model computes by a relative error",),
        guard={"gatelens.circuits.building.check_forwards": lambda *arguments: None},
    ),
    Fault(
        34,
        "a compiled model",
        lambda folder: Injected(lambda: collect(torch.compile(small(), backend="eager"), padded("right"), HOOKS)),
        ModelError,
        ("the model is compiled", "compiled._orig_mod"),
    ),
    Fault(
        34,
        "a hook that never fires",
        at("blocks.0.attn.hook_result"),
        DataError,
        ("nothing passes through blocks.0.attn.hook_result", "set_use_attn_result(True)"),
    ),
    Fault(
        34,
        "another reshape",
        lambda folder: Injected(lambda: Segment("a", "b", torch.relu, 4, 4, reshape="head")),
        SegmentError,
        ('"heads"', "'head'"),
    ),
    Fault(7, "one layer", layers(3, [3])),
    Fault(7, "the last layer", layers([-1], [3])),
    Fault(7, "layers out of order", layers((2, 0, -2), [0, 2])),
    Fault(7, "layers that are no numbers", layers("all", []), SegmentError, ("0..3", "'all'")),
    Fault(7, "a layer before the first", layers([-5], []), SegmentError, ("layer -5", "0..3")),
    Fault(
        40,
        "a prompt under a splice",
        prompt_under_splice(lambda circuit, folder: circuit),
        guard={"gatelens.segments.Outside": mock.Mock(of=lambda model: None)},
    ),
    Fault(40, "a prompt under a loaded circuit", prompt_under_splice(reloaded)),
    Fault(40, "a prompt under segments of one's own", prompt_under_splice(segments_of_ones_own)),
    Fault(
        41,
        "an SAE hides the MLP's output",
        attached_sae("blocks.0.hook_mlp_out"),
        ModelError,
        ("an SAE is attached at blocks.0.hook_mlp_out", "reset_saes"),
    ),
    Fault(
        41,
        "an SAE hides the residual stream",
        attached_sae("blocks.1.hook_resid_post"),
        ModelError,
        ("an SAE is attached at blocks.1.hook_resid_post",),
    ),
]

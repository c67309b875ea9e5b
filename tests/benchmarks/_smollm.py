"""SmolLM2's rows for the benchmark of rules: activations kept on the disk, so that a stopped run goes on where it was."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from _kept import FOLDER
from _texts import documents

import gatelens as gl
from gatelens.data.seen import is_kept_apart

LENGTH = 128
#: characters of a document that are read, so that a few long chapters are not most of the rows
MOST = 4_000
#: rows whose output is so many times the median's length are sinks, which would be most of any sum
SINK = 6.0
#: where tools/train_smollm2.py keeps activations
TRAINED = Path(__file__).resolve().parents[2] / "runs" / "train_smollm2"


@dataclass(frozen=True)
class Rows:
    """Rows of both ends of one MLP, without sinks and without the first position, and where they come from."""

    x: torch.Tensor
    y: torch.Tensor
    document: torch.Tensor
    position: torch.Tensor
    token: torch.Tensor

    @classmethod
    def of(cls, acts: gl.Activations, segment: Any, most: int) -> Rows:
        """At most so many of them, the first."""
        kept = rows_kept(acts, segment)
        parts = (acts[segment.hook_in], acts[segment.hook_out], acts.document, acts.position, acts.token)
        x, y, *where = (part[kept][:most] for part in parts)
        return cls(x.float(), y.float(), *where)

    def with_outputs(self, y: torch.Tensor) -> Rows:
        """The same rows at the input, other outputs."""
        return replace(self, y=y)


def rows_kept(acts: gl.Activations, segment: Any) -> torch.Tensor:
    """Which rows count: position 0 is BOS, the first token knows no other, and sinks are let go."""
    size = acts[segment.hook_out].float().norm(dim=1)
    return (size <= SINK * size.median()) & (acts.position > 1)


def windows(model: Any, data: Path, rows: tuple[int, int], seed: int) -> tuple[gl.Batches, gl.Batches]:
    """Token windows of fitting and of held-out documents."""
    texts = documents(data)
    random.Random(seed).shuffle(texts)
    fit, held = ([t[:MOST] for t in texts if is_kept_apart(t) is apart] for apart in (False, True))
    counts = tuple(n // (LENGTH - 1) for n in rows)
    return gl.text_batches(model, fit, rows=counts, length=LENGTH, held_out=held, batch_size=32, seed=seed)


def collected(model: Any, data: Path, layers: Sequence[int], rows: tuple[int, int], seed: int) -> tuple[Any, Any]:
    """Fitting and held-out activations at the layers' MLPs; held-out documents are none that dictionaries were trained on.

    Where tools/train_smollm2.py has left the rows that it trained on, these are the fitting rows: a pass to layer 22 is long.
    """
    parts = windows(model, data, rows, seed)
    segments = gl.mlp_segments(model, layers=list(layers))
    place = FOLDER / f"{seed}-{'-'.join(map(str, layers))}-{rows[0]}-{rows[1]}-{MOST}"
    unseen = gl.collect(model, parts[1], segments, store=place / "held")
    if (left := TRAINED / "-".join(map(str, sorted(layers, reverse=True))) / "fit").is_dir():
        return gl.Activations.open(left), unseen
    return gl.collect(model, parts[0], segments, store=place / "fit"), unseen

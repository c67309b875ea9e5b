"""Planted circuits over invented text, and over the digits: made in a second, for tests and measurements of pages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from gatelens.activations import Activations
from gatelens.basis.linear import Rotation
from gatelens.circuits import Circuit
from gatelens.connectors import Connector
from gatelens.gates import type_gates
from gatelens.segments import Segment

HOOK_IN, HOOK_OUT = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"


class Words:
    """A tokenizer of one word a token; decodes only."""

    def __init__(self, words: list[str]):
        self.words = words

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[i] for i in ids)


@dataclass(frozen=True)
class Planted:
    circuit: Circuit
    acts: Activations
    tokenizer: Any


def planted(
    words: list[str], outputs: int = 6, inputs: int = 12, rows: int = 4096, length: int = 32, seed: int = 0
) -> Planted:
    """Inputs fire on words of their own; outputs are OR, AND (with the word before) and AND-NOT of them, with a little noise."""
    g = torch.Generator().manual_seed(seed)
    documents = rows // length
    token = torch.randint(0, len(words), (documents, length), generator=g)
    half = inputs // 2
    here = torch.stack([(token % half == i) for i in range(half)], -1)
    before = torch.roll(here, 1, 1)
    before[:, 0] = False
    on = torch.cat([here, before], -1).reshape(rows, -1)
    f_in = on.float() * (0.5 + torch.rand(on.shape, generator=g))
    weight, f_out = torch.zeros(outputs, on.shape[1]), torch.zeros(rows, outputs)
    for o in range(outputs):
        a, b = o % half, (o + 1 + o // half) % half
        if a == b:
            b = (b + 1) % half
        if o % 3 == 0:
            weight[o, [a, b]] = 1.0
            f_out[:, o] = (f_in[:, a] + f_in[:, b]).clamp_min(0)
        elif o % 3 == 1:
            weight[o, [a, half + b]] = 0.7
            f_out[:, o] = (0.7 * (f_in[:, a] + f_in[:, half + b])) * (on[:, a] & on[:, half + b])
        else:
            weight[o, a], weight[o, half + b] = 1.0, -1.5
            f_out[:, o] = f_in[:, a] * (on[:, a] & ~on[:, half + b])
    noise = torch.rand(f_out.shape, generator=g)
    f_out = torch.where(
        noise < 0.02, torch.zeros(()), torch.where((noise > 0.999) & (f_out == 0), torch.tensor(0.3), f_out)
    )
    connector = Connector.from_dense(weight, torch.where(torch.arange(outputs) % 3 == 1, -0.6, 0.0), solver="Planted()")
    where = (
        torch.arange(documents)[:, None].expand(-1, length).reshape(-1),
        torch.arange(length).expand(documents, -1).reshape(-1),
    )
    acts = Activations({HOOK_IN: f_in, HOOK_OUT: f_out}, *where, token.reshape(-1), "invented text")
    segment = Segment(HOOK_IN, HOOK_OUT, lambda x: x, on.shape[1], outputs)
    bases = {
        HOOK_IN: Rotation(torch.eye(on.shape[1]), label="planted"),
        HOOK_OUT: Rotation(torch.eye(outputs), label="planted"),
    }
    gates = type_gates(connector, f_in, f_out)
    gates = [
        replace(g, verified=True, intervention=replace(g.table, source="interventional"))
        if g.out % 2 == 0 and g.table
        else g
        for g in gates
    ]
    return Planted(
        Circuit([segment], bases, {segment.name: connector}, {segment.name: gates}, {"model": "planted", "seed": seed}),
        acts,
        Words(words),
    )

"""Contrast: two prompts, the gates that differ, and which of them carry the difference of two tokens' logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..basis.linear import directions
from ..errors import DataError
from ..lazy import shows_itself
from .firing import shown
from .running import Change
from .scene import Layer, Scene


@dataclass(frozen=True)
class Carrier:
    """One gate's part in the difference of two prompts.

    Attributes:
        segment, out, name: which output feature. one, two: its largest value on either prompt at the positions compared.
        alone: what putting its values of the first prompt into the second changes, of the difference.
        remaining: of the difference, once it and all carriers before it are put in.
    """

    segment: str
    out: int
    name: str
    one: float
    two: float
    alone: float
    remaining: float


@shows_itself
@dataclass(frozen=True, eq=False)
class Contrast:
    """Two prompts, and what of the difference of two tokens' logits at their ends each gate carries.

    Attributes:
        one, two: the prompts' texts. tokens: the two whose difference is followed.
        first, second: logit of the first token less that of the second, on either prompt. compared: positions from the end.
        differing: output features that differ there. carriers: those that carry most, the strongest alone first.
        gates_remaining: of the difference, with every differing output put in; outputs_remaining: with the whole output of the
            segments put in, what their dictionaries miss included.
    """

    one: str
    two: str
    tokens: tuple[str, str]
    first: float
    second: float
    compared: int
    differing: int
    carriers: tuple[Carrier, ...]
    gates_remaining: float
    outputs_remaining: float

    @property
    def difference(self) -> float:
        """What there is to explain."""
        return self.first - self.second

    def __repr__(self) -> str:
        up, down = (f"`{shown(t)}`" for t in self.tokens)
        lines = [
            f"Contrast of {self.one!r} with {self.two!r}: logit of {up} less that of {down} "
            f"{self.first:+.2f} and {self.second:+.2f}, difference {self.difference:+.2f}",
            f"  {self.differing} outputs differ at the last {self.compared} positions; values of the first put into the second:",
        ]
        lines += [
            f"    {c.name}: {c.one:.3g} and {c.two:.3g}   alone {c.alone:+.2f}   with those above {c.remaining:+.2f} remain"
            for c in self.carriers[:10]
        ]
        lines.append(
            f"  all {self.differing} put in: {self.gates_remaining:+.2f} remain; the segments' whole outputs put in: "
            f"{self.outputs_remaining:+.2f}. The rest comes from attention and other layers"
        )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return vars(self) | {"difference": self.difference, "carriers": [vars(c) for c in self.carriers]}


def contrasted(reading: Scene, other: Any, tokens: tuple[str | int, str | int] | None, most: int) -> Contrast:
    """See `PromptReading.contrast`.

    Raises:
        DataError: the same prompt twice, or two tokens that are one.
    """
    second = other if isinstance(other, Scene) else Scene.of(reading.circuit, reading.model, other)
    if second.prompt.inputs.shape == reading.prompt.inputs.shape and bool(
        (second.prompt.inputs == reading.prompt.inputs).all()
    ):
        raise DataError("both prompts are the same: nothing differs. Give another one")
    up, down = _tokens(reading, second, tokens)
    same = min(len(reading), len(second))
    parts = [_Part(a, b, same) for a, b in zip(reading.layers.values(), second.layers.values(), strict=True)]
    tables = {p: _table(second, p) for p in parts}
    guesses = {p: p.guesses(tables[p], up, down) for p in parts}
    gates = [(p, out) for p in parts for out in p.differing]
    gates.sort(key=lambda g: -float(guesses[g[0]][g[1]]))

    def difference(logits: Tensor) -> float:
        return float(logits[-1, up].double() - logits[-1, down].double())

    def after(runs: Sequence[Sequence[tuple[_Part, int]]]) -> list[float]:
        changes = [change for n, put in enumerate(runs) for change in _put(tables, put, n)]
        return [difference(logits) for logits in second.runner.run(changes, max(1, len(runs))).logits]

    begin, end = difference(second.logits), difference(reading.logits)
    few = gates[: 2 * most]
    alone = dict(zip(few, (d - begin for d in after([[g] for g in few])), strict=False))
    order = sorted(few, key=lambda g: -alone[g] if end >= begin else alone[g])[:most]
    more = after([order[: n + 1] for n in range(len(order))] + [gates]) if gates else [begin]
    whole = [Change(0, p.hook, p.positions, p.step()) for p in parts]
    carriers = [
        Carrier(
            p.one.segment.name,
            out,
            reading.ordinary.name("OF", p.hook, out),
            float(p.one.f_out[-same:, out].max()),
            float(p.two.f_out[-same:, out].max()),
            alone[p, out],
            end - more[n],
        )
        for n, (p, out) in enumerate(order)
    ]
    one, two = ("".join(t for t, k in zip(r.prompt.texts, r.prompt.keep, strict=True) if k) for r in (reading, second))
    return Contrast(
        one,
        two,
        (reading.text_of(up), reading.text_of(down)),
        end,
        begin,
        same,
        len(gates),
        tuple(carriers),
        end - more[-1],
        end - difference(second.runner.run(whole).logits[0]),
    )


def _tokens(one: Scene, two: Scene, tokens: tuple[str | int, str | int] | None) -> tuple[int, int]:
    """The two that were asked for; else the one that the first prompt raises most over the second, and the reverse."""
    if tokens is not None:
        up, down = one.target(tokens[0], -1), one.target(tokens[1], -1)
    else:
        # of each prompt's likely tokens those whose chances differ most
        gap = one.logits[-1].softmax(-1) - two.logits[-1].softmax(-1)
        up, down = int(gap.argmax()), int(gap.argmin())
    if up == down:
        raise DataError(f"a contrast needs two tokens, got {one.text_of(up)!r} twice")
    return up, down


@dataclass(frozen=True, eq=False)
class _Part:
    """One segment on both prompts, aligned from their ends."""

    one: Layer
    two: Layer
    same: int

    @property
    def hook(self) -> str:
        return self.two.segment.hook_out

    @property
    def positions(self) -> Tensor:
        """The positions that are compared, in the second prompt."""
        return torch.arange(len(self.two.f_out) - self.same, len(self.two.f_out))

    @property
    def change(self) -> Tensor:
        """[compared, n] first less second."""
        return self.one.f_out[-self.same :] - self.two.f_out[-self.same :]

    @property
    def differing(self) -> list[int]:
        return (self.change != 0).any(0).nonzero()[:, 0].tolist()

    def guesses(self, table: Tensor, up: int, down: int) -> Tensor:
        """[n] how much each gate may carry: its direct effect at the end where there is a linear way, and a little for its size."""
        size = 1e-3 * self.change.abs().sum(0) * table.norm(dim=1)
        if self.two.path is None:
            return size
        ends = self.two.path.readers(torch.full((len(self.two.f_out),), up)) - self.two.path.readers(
            torch.full((len(self.two.f_out),), down)
        )
        return size + (self.change[-1] * (table @ ends[-1])).abs()

    def step(self) -> Tensor:
        """[compared, d] the whole difference of the outputs."""
        return self.one.y[-self.same :] - self.two.y[-self.same :]


def _table(reading: Scene, part: _Part) -> Tensor:
    return directions(reading.circuit.bases[part.hook], part.two.f_out.shape[1]).float().cpu()


def _put(tables: Mapping[_Part, Tensor], gates: Sequence[tuple[_Part, int]], run: int) -> list[Change]:
    """Some gates' values of the first prompt in a run of the second."""
    found = []
    for part in dict.fromkeys(p for p, _ in gates):
        outs = [out for p, out in gates if p is part]
        found.append(Change(run, part.hook, part.positions, part.change[:, outs] @ tables[part][outs]))
    return found

"""Wires against ablation: what removing an input feature from the real model does to the output that it is wired to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from gatelens.connectors import Connector
from gatelens.gates.stage import CHUNK, Stage

#: an effect this many standard errors on the other side of zero contradicts its wire
BEYOND = 2.0
#: an effect below this share of what the wire says counts as none
SILENT = 0.01


@dataclass(frozen=True)
class WireAblation:
    """Ablated wires, the strongest first.

    Attributes:
        out, parent, weight: [wires] the wires.
        predicted: [wires] what the wire adds to the output's sum where its parent is on: weight times mean value.
        effect: [wires] mean drop of the output in the real model when the parent is removed from rows where it is on.
        error: [wires] standard error of that mean; rows: [wires] how many rows.
    """

    out: Int[Tensor, " wires"]
    parent: Int[Tensor, " wires"]
    weight: Float[Tensor, " wires"]
    predicted: Float[Tensor, " wires"]
    effect: Float[Tensor, " wires"]
    error: Float[Tensor, " wires"]
    rows: Int[Tensor, " wires"]

    @property
    def contradicted(self) -> Bool[Tensor, " wires"]:
        """Wires whose real effect lies on the other side of zero, by more than `BEYOND` standard errors."""
        return (self.effect * self.weight.sign() < -BEYOND * self.error) & ~self.silent

    @property
    def silent(self) -> Bool[Tensor, " wires"]:
        """Wires whose removal does less than a hundredth of what the wire says, on average and in its error."""
        return self.effect.abs() + self.error < SILENT * self.predicted.abs()

    def figures(self, seed: int = 0) -> dict[str, Any]:
        """Plain numbers; agreement is over wires with an effect. `shuffled_*`: effects handed to the wrong wires."""
        moved = (~self.silent).numpy()
        weight, effect = self.predicted.numpy()[moved], self.effect.numpy()[moved]
        mixed = np.random.default_rng(seed).permutation(effect)
        return {
            "edges": len(self.out),
            "silent": int(self.silent.sum()),
            "contradicted": int(self.contradicted.sum()),
            "sign_agreement": _signs(weight, effect),
            "shuffled_sign_agreement": _signs(weight, mixed),
            "rank_correlation": _ranks(weight, effect),
            "shuffled_rank_correlation": _ranks(weight, mixed),
        }


def ablate_wires(
    stage: Stage, connector: Connector, top: int | None = 200, rows: int = 64, seed: int = 0
) -> WireAblation:
    """Remove the parents of the strongest wires from the model, one parent at a time.

    Strength is |weight| times the parent's mean value where on. Parents that are on in none of the rows are left out.

    Args:
        stage: real rows at the segment's input.
        top: how many wires; None for all.
        rows: on how many of its rows each parent is removed, drawn anew.
    """
    random = np.random.default_rng(seed)
    crow = connector.weight.crow_indices()
    outs = torch.repeat_interleave(torch.arange(len(crow) - 1), crow.diff())
    parents, weights = connector.weight.col_indices(), connector.weight.values().detach()
    predicted = weights * torch.from_numpy(stage.typical).to(weights)[parents]
    order = torch.argsort(predicted.abs(), descending=True, stable=True)
    order = order[predicted[order] != 0][:top]
    outs, parents, weights, predicted = (t[order] for t in (outs, parents, weights, predicted))
    effect, error, count = torch.zeros(len(order)), torch.zeros(len(order)), torch.zeros(len(order), dtype=torch.long)
    for parent in parents.unique().tolist():
        wires = torch.nonzero(parents == parent)[:, 0]
        drops = _drops(stage, parent, outs[wires], rows, random)
        effect[wires], count[wires] = drops.mean(0), len(drops)
        error[wires] = drops.std(0, correction=0) / max(len(drops) - 1, 1) ** 0.5
    return WireAblation(outs, parents, weights, predicted, effect, error, count)


def drop_contradicted(connector: Connector, ablation: WireAblation, silent: bool = False) -> Connector:
    """The connector without the wires that ablation contradicts, and with `silent` without those that do nothing.

    Weights and biases stay as they are: fit them again on the smaller support where that matters.
    """
    bad = ablation.contradicted | ablation.silent if silent else ablation.contradicted
    m = connector.weight.shape[1]
    crow = connector.weight.crow_indices()
    outs = torch.repeat_interleave(torch.arange(len(crow) - 1), crow.diff())
    keep = ~torch.isin(outs * m + connector.weight.col_indices(), ablation.out[bad] * m + ablation.parent[bad])
    pointers = torch.zeros(len(crow), dtype=crow.dtype)
    pointers[1:] = torch.bincount(outs[keep], minlength=len(crow) - 1).cumsum(0)
    weight = torch.sparse_csr_tensor(
        pointers,
        connector.weight.col_indices()[keep],
        connector.weight.values()[keep],
        tuple(connector.weight.shape),
        check_invariants=True,
    )
    return replace(connector, weight=weight)


def _drops(
    stage: Stage, parent: int, outs: Tensor, rows: int, random: np.random.Generator
) -> Float[Tensor, "rows outs"]:
    """By how much each output falls on each row when the parent is removed."""
    on = np.flatnonzero(stage.values([parent], np.arange(len(stage.x)))[:, 0])
    chosen = random.choice(on, min(rows, len(on)), replace=False)
    step = -stage.values([parent], chosen) @ stage.directions[[parent]]
    return _shown(stage, stage.x[torch.from_numpy(chosen)], outs) - _shown(stage, stage.moved(chosen, step), outs)


def _shown(stage: Stage, x: Tensor, outs: Tensor) -> Float[Tensor, "rows outs"]:
    return torch.cat([stage.outputs(part)[:, outs.to(part.device)].cpu() for part in x.split(CHUNK)])


def _signs(weight: np.ndarray, effect: np.ndarray) -> float | None:
    return float((np.sign(weight) == np.sign(effect)).mean()) if len(weight) else None


def _ranks(weight: np.ndarray, effect: np.ndarray) -> float | None:
    """Spearman's rank correlation; None where either side does not vary."""
    if len(weight) < 3 or np.ptp(weight) == 0 or np.ptp(effect) == 0:
        return None
    return float(spearmanr(weight, effect).statistic)  # pyright: ignore[reportAttributeAccessIssue]

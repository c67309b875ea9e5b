"""Causal figures: what the connector says an edit of the features does, against what it does in the real model.

An edit changes a row's code f to f'; the model's input moves by the same steps along the decoder directions, so that
what no feature explains is kept. The connector predicts the change from f and f'; the model computes it. A circuit
that only describes natural rows can do well on them and badly here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..basis import Basis, directions
from ..basis.output import at_output, output_features
from ..codes import Codes
from ..connectors import Connector
from ..edits.counterfactual import Library
from ..edits.kinds import EditRows, decisive
from ..segments import Segment

#: rows edited at once; a dense block of features of a wide basis must fit
_ROWS = 512


@dataclass
class _Errors:
    """Sums of squares over all edited rows: of the output, of its true change, and of what each prediction leaves of that."""

    before: list[Tensor] = field(default_factory=list)
    total: float = 0.0
    left: dict[str, float] = field(default_factory=dict)

    def add(self, true: Tensor, **predicted: Tensor) -> None:
        self.total += float(true.double().square().sum())
        for name, change in predicted.items():
            self.left[name] = self.left.get(name, 0.0) + float((true - change).double().square().sum())

    def size(self) -> float | None:
        """The mean square of the true change over the variance of the output: how much the edits do at all."""
        y = torch.cat(self.before)
        variance = float((y - y.mean(0)).double().square().sum())
        return self.total / variance if variance > 0 else None

    def r2(self, name: str) -> float | None:
        """1 - |error|^2 / |change|^2: 0 for a prediction of no change, negative for a worse one."""
        return 1 - self.left[name] / self.total if self.total > 0 else None


@dataclass
class _Flips:
    """Counts of one direction of flips, over rows and output features in the state it starts from."""

    predicted: int = 0
    happened: int = 0
    unpredicted: int = 0
    unpredicted_happened: int = 0

    def add(self, start: Bool[Tensor, "rows n"], flipped: Tensor, predicted: Tensor, unchanged: Tensor) -> None:
        self.predicted += int((start & predicted).sum())
        self.happened += int((start & predicted & flipped).sum())
        self.unpredicted += int((start & unchanged).sum())
        self.unpredicted_happened += int((start & unchanged & flipped).sum())

    def figures(self) -> dict[str, Any]:
        """predicted: how many flips the connector foresees; happened: the share of these that the model makes;
        base_rate: the share that flips where it foresees no change; recall: of all flips, the share foreseen."""
        flips = self.happened + self.unpredicted_happened
        return {
            "predicted": self.predicted,
            "happened": self.happened / self.predicted if self.predicted else None,
            "base_rate": self.unpredicted_happened / self.unpredicted if self.unpredicted else None,
            "recall": self.happened / flips if flips else None,
        }


@dataclass
class _BorneOut:
    """Flips of features that are computed from the input, whose own state after an edit is true by construction.

    A predicted flip is borne out when y moves along the feature's decoder direction by at least half of what all features together
    predict there. The base rate is that of another row's real change.
    """

    predicted: int = 0
    happened: int = 0
    by_chance: int = 0

    def add(self, flips: Bool[Tensor, "rows n"], said: Tensor, true: Tensor, other: Tensor) -> None:
        self.predicted += int(flips.sum())
        self.happened += int((flips & (true * said >= said.square() / 2)).sum())
        self.by_chance += int((flips & (other * said >= said.square() / 2)).sum())

    def figures(self) -> dict[str, Any]:
        share = [n / self.predicted if self.predicted else None for n in (self.happened, self.by_chance)]
        return {"predicted": self.predicted, "happened": share[0], "base_rate": share[1], "recall": None}


def edit_figures(
    segment: Segment,
    basis_in: Basis,
    basis_out: Basis,
    connector: Connector,
    x: Float[Tensor, "rows d_in"],
    edit: EditRows,
    generator: torch.Generator,
    back: bool = False,
) -> dict[str, Any]:
    """R2 of the predicted change in the segment's output for one kind of edit, and the flips of its features.

    Beside the connector's R2: the local Jacobian's (the model's own derivative at each row, along the same step), and
    that of the connector's predictions handed to the wrong rows, which knows the sizes but not the rows. The flips of a dictionary
    whose features are computed from the input are judged by what y does (`_BorneOut`).

    Args:
        back: read each edit backwards: from the edited row to the natural one.
    """
    codes = Codes.encode(basis_in, x)
    library, steps = Library.observed(codes), directions(basis_in, codes.width).to(x)
    errors = _Errors()
    dictionary = at_output(basis_out)
    read, borne_out = (_Flips(), _Flips()), (_BorneOut(), _BorneOut())
    for rows in torch.arange(len(x), device=x.device).split(_ROWS):
        part, natural = x[rows], codes.rows(rows)
        made = edit(natural, library, generator)
        f, after, change = natural.dense(), made.codes.dense(), made.change.dense()
        step = made.step(steps)
        if back:
            part, step, f, after, change = part + step, -step, after, f, -change
        with torch.no_grad():
            y, y_after = segment.forward(part), segment.forward(part + step)
            p, p_after = connector(f), connector(after)
            predicted = basis_out.decode(p_after) - basis_out.decode(p) + dictionary.bypass_change(change.to(x), step)
        slope = torch.func.jvp(segment.forward, (part,), (step,))[1]
        order = torch.randperm(len(part), generator=generator).to(x.device)
        errors.before.append(y)
        errors.add(y_after - y, connector=predicted, jacobian=slope.detach(), shuffled=predicted[order])
        said, says = p > 0, p_after > 0
        if not dictionary.reads_output:
            off, on = borne_out
            along = [c @ directions(basis_out, p.shape[1]).T for c in (predicted, y_after - y, (y_after - y)[order])]
            off.add(said & ~says, *along)
            on.add(~said & says, *along)
        else:
            off, on = read
            was, now = (_dense(output_features(basis_out, a, b)) > 0 for a, b in ((part, y), (part + step, y_after)))
            off.add(was, ~now, said & ~says, said == says)
            on.add(~was, now, ~said & says, said == says)
    off, on = read if dictionary.reads_output else borne_out
    return {
        "r2": errors.r2("connector"),
        "local_jacobian_r2": errors.r2("jacobian"),
        "shuffled_r2": errors.r2("shuffled"),
        "size": errors.size(),
        "on_off": off.figures(),
        "off_on": on.figures(),
    }


def restoring_figures(
    segment: Segment,
    basis_in: Basis,
    basis_out: Basis,
    connector: Connector,
    x: Float[Tensor, "rows d_in"],
    generator: torch.Generator,
) -> dict[str, Any] | None:
    """`edit_figures` of putting a removed feature back into its own row, where some output is closed only for its lack.

    A feature put in at random meets a context it never occurs in; this one is what the row was made of. Rows in which no
    feature closes an output count for nothing. None for a linear connector, whose outputs neither open nor close.
    """
    if connector.activation == "identity":
        return None
    edit = decisive(lambda f: connector(f) > 0)
    return edit_figures(segment, basis_in, basis_out, connector, x, edit, generator, back=True)


def _dense(f: Tensor) -> Tensor:
    return f.to_dense() if f.layout == torch.sparse_csr else f

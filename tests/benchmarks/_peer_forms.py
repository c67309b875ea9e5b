"""Ways to replace an MLP as the table of peers holds them: one value for all, and the forms that exist nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from gatelens.bases.sae.training import falling, shuffled
from gatelens.basis.linear import directions
from gatelens.basis.output import at_output
from gatelens.codes.active import unit_rows_
from gatelens.connectors import Connector
from gatelens.segments.segment import ACTIVATIONS, MLPWeights

#: rows that go through a form at once
BLOCK = 1_024
_SHRINK = 1e-3


@dataclass
class Form:
    """Something that stands for an MLP.

    Attributes:
        output: (rows at the input, their code) -> rows at the output. A form of named inputs reads the code, others the rows.
        weights: numbers between its inputs and y, biases and thresholds too; the dictionary that names the inputs is not counted.
        inputs: how many inputs one of its outputs has, in the mean.
        features: (rows, code) -> its outputs, of which those that are not zero are on; None where it has none.
        basis_out: the dictionary whose features these are, where rules may be read of them.
        basis_in: of the code that it reads; None: the one that all share.
        segment: what it stands for; None: the model's own MLP.
        seconds: what its training took, where that was before. note: what is to be said of it.
    """

    output: Callable[[Tensor, Tensor], Tensor]
    weights: int
    inputs: float
    features: Callable[[Tensor, Tensor], Tensor] | None = None
    basis_out: Any = None
    basis_in: Any = None
    segment: Any = None
    seconds: float | None = None
    note: str = ""

    def rows(self, x: Float[Tensor, "rows d_in"], f: Float[Tensor, "rows m"]) -> Float[Tensor, "rows d_out"]:
        """`output`, some rows at a time."""
        with torch.no_grad():
            return torch.cat([self.output(a, b) for a, b in zip(x.split(BLOCK), f.split(BLOCK), strict=True)])


def of_wires(basis_out: Any, connector: Connector, **rest: Any) -> Form:
    """Outputs that a connector computes from the code, and what they decode to."""
    dictionary, (n, d_out) = at_output(basis_out), directions(basis_out, connector.weight.shape[0]).shape
    counted = connector.wires + 2 * n + n * d_out + d_out
    return Form(
        output=lambda x, f: dictionary.decoded(connector(f), x),
        weights=counted,
        inputs=connector.wires / n,
        features=lambda x, f: connector(f),
        basis_out=basis_out,
        **rest,
    )


def of_gates(basis: Any, **rest: Any) -> Form:
    """A gate dictionary; a linear bypass reads the same code, so that edits reach it as they reach the gates."""
    form, past = of_wires(basis, basis.connector, **rest), basis.bypass_in
    if past is None:
        return form
    return replace(
        form,
        output=lambda x, f: basis.decode(basis.connector(f)) + f @ past,
        weights=form.weights + int((past != 0).any(1).sum()) * past.shape[1],
        note=form.note or "a dense linear map of the code beside the outputs",
    )


def of_pair(basis: Any) -> Form:
    """A dictionary that reads all of x: a transcoder."""
    n, d_out = basis.W_dec.shape
    skip = basis.d_in * d_out if basis.bypassed else 0
    return Form(
        output=lambda x, f: basis.reconstruct(x),
        weights=n * (basis.d_in + 2 + d_out) + d_out + skip,
        inputs=basis.d_in,
        features=lambda x, f: basis.features_from(x),
        basis_out=basis,
        note="a dense linear map of x beside the features" if skip else "",
    )


def of_linear(connector: Connector) -> Form:
    """A dense affine map of the code."""
    n, m = connector.weight.shape
    dense = connector.weight.to_dense()
    return Form(lambda x, f: f @ dense.T + connector.bias, n * m + n, m, note="each dimension of y is an output")


# ---- neurons


def kept_neurons(mlp: MLPWeights, x: Tensor, y: Tensor, count: int) -> Form:
    """The neurons that carry the most of y, as they are; what they write is fitted anew, so that the others' means are in it."""
    upto, readers = replace(mlp, W_out=None), 1 if mlp.W_gate is None else 2
    h = _hidden(upto, x)
    written = h.var(0) if mlp.W_out is None else h.var(0) * mlp.W_out.square().sum(1)
    best = written.topk(min(count, len(written))).indices.sort().values
    few = replace(upto, W_in=upto.W_in[:, best], b_in=upto.b_in[best],
                  W_gate=None if upto.W_gate is None else upto.W_gate[:, best])  # fmt: skip
    out, offset = least_squares(h[:, best], y)
    d_in, d_out = mlp.W_in.shape[0], y.shape[1]
    return Form(
        lambda x, f: few(x) @ out + offset,
        len(best) * (readers * d_in + 1 + d_out) + d_out,
        d_in,
        lambda x, f: few(x),
        note=f"{len(best)} of {len(written)} neurons, as many as have the weights of the gates with 8 inputs",
    )


def one_feature_each(segment: Any, basis_in: Any, x: Tensor, y: Tensor) -> Form:
    """Each neuron of each row sees one feature: the one that moves it furthest from its value without any.

    What a static interaction of single features and single neurons could say at best, chosen anew in every row; what the
    neurons write is fitted to these values.
    """
    mlp = segment.mlp
    empty = basis_in.decode(x.new_zeros(1, len(directions(basis_in, basis_in.encode(x[:1]).shape[1]))))[0]
    steps = directions(basis_in, basis_in.encode(x[:1]).shape[1])
    sides = [w for w in (mlp.W_in, mlp.W_gate) if w is not None]
    table, start = [steps @ w for w in sides], [empty @ w for w in sides]
    start[0] = start[0] + mlp.b_in

    def hidden(f: Tensor) -> Tensor:
        return torch.cat([_strongest(part, table, start, mlp.act) for part in f.split(64)])

    with torch.no_grad():
        h = hidden(basis_in.encode(x))
    out, offset = least_squares(h, y)
    weights = sum(t.numel() for t in table) + out.numel() + len(offset)
    return Form(lambda x, f: hidden(f) @ out + offset, weights, 1, lambda x, f: hidden(f),
                note="the feature is chosen anew for every neuron and row")  # fmt: skip


def _strongest(
    f: Float[Tensor, "rows m"], table: list[Tensor], start: list[Tensor], act: str
) -> Float[Tensor, "rows neurons"]:
    """Every neuron with its one feature, of those that are on in the row."""
    most = max(1, int((f != 0).sum(1).max()))
    value, on = f.abs().topk(most, dim=1)
    value = torch.gather(f, 1, on)
    sides = [s + value[..., None] * t[on] for t, s in zip(table, start, strict=True)]  # [rows, most, neurons]
    post = ACTIVATIONS[act](sides[-1]) * (sides[0] if len(sides) == 2 else 1.0)
    alone = ACTIVATIONS[act](start[-1]) * (start[0] if len(sides) == 2 else 1.0)
    best = (post - alone).abs().argmax(1, keepdim=True)
    return post.gather(1, best)[:, 0]


def _hidden(upto: MLPWeights, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([upto(part) for part in x.split(4_096)])


def least_squares(h: Float[Tensor, "rows m"], y: Float[Tensor, "rows d"]) -> tuple[Tensor, Tensor]:
    """(weights [m, d], intercept [d]) of y on h, slightly shrunk, in float64."""
    mean_h, mean_y = h.double().mean(0), y.double().mean(0)
    a, b = h.double() - mean_h, y.double() - mean_y
    gram = a.T @ a
    gram.diagonal().add_(_SHRINK * gram.diagonal().mean().clamp_min(1e-12))
    out = torch.linalg.solve(gram, a.T @ b)
    return out.to(y.dtype), (mean_y - mean_h @ out).to(y.dtype)


# ---- a mixture of decoders


class MixtureOfDecoders(nn.Module):
    """y = (C z) * (D a) + b with z = gelu(E x + e) dense and a = the k largest of relu(G x + g): every expert a full-rank decoder.

    Source: "Towards Interpretability Without Sacrifice: Faithful Dense Layer Decomposition with Mixture of Decoders".
    """

    def __init__(self, d_in: int, hidden: int, experts: int, d_out: int, k: int, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: nn.Parameter(torch.randn(*shape, generator=generator) / shape[0] ** 0.5)  # noqa: E731
        self.E, self.G, self.C = draw(d_in, hidden), draw(d_in, experts), draw(hidden, d_out)
        self.D = nn.Parameter(torch.randn(experts, d_out, generator=generator) / k**0.5)
        self.e, self.g, self.b = (nn.Parameter(torch.zeros(n)) for n in (hidden, experts, d_out))
        self.k = k

    def experts(self, x: Tensor) -> Tensor:
        """[rows, experts], k of them on."""
        pre = (x @ self.G + self.g).clamp_min(0)
        value, on = pre.topk(self.k, dim=1)
        return torch.zeros_like(pre).scatter(1, on, value)

    def forward(self, x: Tensor) -> Tensor:
        return (F.gelu(x @ self.E + self.e) @ self.C) * (self.experts(x) @ self.D) + self.b


def train_mixture(x: Tensor, y: Tensor, experts: int, hidden: int, k: int, samples: int, lr: float, seed: int) -> Form:
    """By Adam on the squared error, in units of the data."""
    mean, size = y.mean(0), float((y - y.mean(0)).square().mean().sqrt())
    centre, scale = x.mean(0), float((x - x.mean(0)).square().mean().sqrt())
    model = MixtureOfDecoders(x.shape[1], hidden, experts, y.shape[1], k, seed)
    optimiser, batch = torch.optim.Adam(model.parameters(), lr=lr), 512
    batches = shuffled(len(x), batch, torch.Generator().manual_seed(seed))
    steps = max(1, samples // batch)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * falling(step, steps)
        rows = next(batches)
        loss = (model((x[rows] - centre) / scale) - (y[rows] - mean) / size).square().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    model.eval().requires_grad_(False)
    return Form(
        lambda x, f: model((x - centre) / scale) * size + mean,
        sum(p.numel() for p in model.parameters()),
        x.shape[1],
        lambda x, f: model.experts((x - centre) / scale),
        note=f"{k} of {experts} experts on, {hidden} dense hidden units beside them",
    )


# ---- a pair of dictionaries with few large derivatives between them


class TopK(nn.Module):
    """A TopK dictionary with unit decoder rows that goes on from a trained one: f = topk(relu(x E + e)), x ~ f D + b."""

    def __init__(self, basis: Any, x: Tensor, k: int):
        super().__init__()
        self.k, self.power = k, float((x - x.mean(0)).square().sum(1).mean().clamp_min(1e-12))
        self.W_enc, self.b_enc, self.W_dec, self.b_dec = (
            nn.Parameter(getattr(basis, name).detach().clone().float()) for name in ("W_enc", "b_enc", "W_dec", "b_dec")
        )
        unit_rows_(self.W_dec)

    def active(self, x: Float[Tensor, "rows d"]) -> tuple[Tensor, Tensor]:
        """(features, values), [rows, k] each."""
        value, on = (x @ self.W_enc + self.b_enc).topk(self.k, dim=1)
        return on, value.clamp_min(0)

    def back(self, on: Tensor, value: Tensor) -> Float[Tensor, "rows d"]:
        return (value[..., None] * self.W_dec[on]).sum(1) + self.b_dec

    def missed(self, x: Tensor, x_hat: Tensor) -> Tensor:
        return (x - x_hat).square().sum(1).mean() / self.power

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows m"]:
        on, value = self.active(x)
        return x.new_zeros(len(x), self.W_dec.shape[0]).scatter(1, on, value)

    def decode(self, f: Float[Tensor, "rows m"]) -> Float[Tensor, "rows d"]:
        return f @ self.W_dec + self.b_dec


def train_jacobian_pair(
    mlp: MLPWeights, ends: tuple[TopK, TopK], x: Tensor, samples: int, lr: float, penalty: float, seed: int,
    penalised: int = 24,
) -> None:  # fmt: skip
    """Both dictionaries trained on with the mean |derivative| of active outputs by active inputs in the loss ("Jacobian Sparse
    Autoencoders: Sparsify Computations, Not Just Activations"); `penalised`: rows of a batch at which derivatives are taken.
    """
    inner, outer = ends
    optimiser = torch.optim.Adam([*inner.parameters(), *outer.parameters()], lr=lr)
    batch, generator = 512, torch.Generator().manual_seed(seed)
    steps, batches = max(1, samples // batch), shuffled(len(x), batch, generator)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * falling(step, steps)
        rows = x[next(batches)]
        on_in, value = inner.active(rows)
        x_hat, y = inner.back(on_in, value), mlp(rows)
        on_out, value_out = outer.active(y)
        loss = inner.missed(rows, x_hat) + outer.missed(y, outer.back(on_out, value_out))
        few = slice(0, penalised)
        loss = loss + penalty * active_jacobian(inner, outer, mlp, x_hat[few], on_in[few], on_out[few]).abs().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        unit_rows_(inner.W_dec)
        unit_rows_(outer.W_dec)
    for end in ends:
        end.eval().requires_grad_(False)


def active_jacobian(
    inner: TopK, outer: TopK, mlp: MLPWeights, x: Float[Tensor, "rows d_in"], on_in: Tensor, on_out: Tensor
) -> Float[Tensor, "rows k_out k_in"]:
    """d(active outputs) / d(active inputs) at x through a plain or a gated MLP, differentiable; kinks of TopK are left out."""
    readers = outer.W_enc.T[on_out]
    pulled = readers if mlp.W_out is None else readers @ mlp.W_out.T  # [rows, k_out, neurons]
    written, pre = inner.W_dec[on_in], x @ mlp.W_in + mlp.b_in
    act = ACTIVATIONS[mlp.act]
    if mlp.W_gate is None:
        return (pulled * _slope(act, pre)[:, None]) @ (written @ mlp.W_in).transpose(1, 2)
    gate = x @ mlp.W_gate
    along = act(gate)[:, None] * (written @ mlp.W_in) + (_slope(act, gate) * pre)[:, None] * (written @ mlp.W_gate)
    return pulled @ along.transpose(1, 2)


def _slope(act: Callable[[Tensor], Tensor], pre: Tensor) -> Tensor:
    return torch.func.jvp(act, (pre,), (torch.ones_like(pre),))[1]

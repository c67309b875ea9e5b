"""Products with a segment's Jacobian: J v (push) and J^T u (pull), without forming J.

Plain and gated MLPs have closed forms; a normalisation before the MLP, and any other segment, goes through torch.func.
A segment acts on each row by itself, so the Jacobian of a batch is one matrix [d_out, d_in] for each row.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SegmentError
from ..segments import ACTIVATIONS, MLPWeights, Segment

#: activation functions that act on each unit by itself: their derivative is one number for each unit
ELEMENTWISE = ("relu", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "identity")


def push(
    segment: Segment, x: Float[Tensor, "rows d_in"], tangents: Float[Tensor, "#rows d_in k"]
) -> Float[Tensor, "rows d_out k"]:
    """J(x) v for k tangents in each row (or the same k in every row: leading size 1).

    Raises:
        SegmentError: when x or the tangents do not have the segment's input width.
    """
    _check_width(segment, x, tangents, segment.d_in)
    mlp = closed_form(segment)
    if mlp is None:
        return push_through(segment.forward, x, tangents)
    if segment.prenorm is not None:
        x, tangents = segment.prenorm(x).detach(), push_through(segment.prenorm, x, tangents)
    with torch.no_grad():
        return _mlp_push(mlp, x, tangents).expand(len(x), -1, -1)


def pull(
    segment: Segment, x: Float[Tensor, "rows d_in"], cotangents: Float[Tensor, "#rows d_out k"]
) -> Float[Tensor, "rows d_in k"]:
    """J(x)^T u for k cotangents in each row (or the same k in every row: leading size 1).

    Raises:
        SegmentError: when x does not have the segment's input width, or the cotangents its output width.
    """
    _check_width(segment, x, cotangents, segment.d_out)
    mlp = closed_form(segment)
    if mlp is None:
        return pull_through(segment.forward, x, cotangents)
    inner = x if segment.prenorm is None else segment.prenorm(x).detach()
    with torch.no_grad():
        pulled = _mlp_pull(mlp, inner, cotangents).expand(len(x), -1, -1)
    return pulled if segment.prenorm is None else pull_through(segment.prenorm, x, pulled)


def closed_form(segment: Segment) -> MLPWeights | None:
    """The segment's MLP, when its activation function has a derivative that we know in closed form."""
    mlp = segment.mlp
    return mlp if mlp is not None and (mlp.act in ELEMENTWISE or mlp.act == "solu") else None


def push_through(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "rows d"], tangents: Float[Tensor, "#rows d k"]
) -> Float[Tensor, "rows e k"]:
    """J v of any function that acts row by row, by forward-mode differentiation."""

    def one(v: Tensor) -> Tensor:
        return torch.func.jvp(function, (x,), (v,))[1]

    return torch.vmap(one, in_dims=2, out_dims=2)(tangents.expand(len(x), -1, -1)).detach()


def pull_through(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "rows d"], cotangents: Float[Tensor, "#rows e k"]
) -> Float[Tensor, "rows d k"]:
    """J^T u of any function that acts row by row, by reverse-mode differentiation."""
    vjp = torch.func.vjp(function, x)[1]

    def one(u: Tensor) -> Tensor:
        return vjp(u)[0]

    return torch.vmap(one, in_dims=2, out_dims=2)(cotangents.expand(len(x), -1, -1)).detach()


def _mlp_push(mlp: MLPWeights, x: Tensor, v: Tensor) -> Tensor:
    pre, linear = x @ mlp.W_in + mlp.b_in, mlp.W_in.T @ v
    if mlp.W_gate is None:
        hidden = _act_push(mlp.act, pre, linear)
    else:
        gate = x @ mlp.W_gate
        slope = _act_push(mlp.act, gate, mlp.W_gate.T @ v)
        hidden = ACTIVATIONS[mlp.act](gate)[..., None] * linear + pre[..., None] * slope
    return hidden if mlp.W_out is None else mlp.W_out.T @ hidden


def _mlp_pull(mlp: MLPWeights, x: Tensor, u: Tensor) -> Tensor:
    pre, hidden = x @ mlp.W_in + mlp.b_in, u if mlp.W_out is None else mlp.W_out @ u
    if mlp.W_gate is None:
        return mlp.W_in @ _act_pull(mlp.act, pre, hidden)
    gate = x @ mlp.W_gate
    through_gate = mlp.W_gate @ _act_pull(mlp.act, gate, pre[..., None] * hidden)
    return mlp.W_in @ (ACTIVATIONS[mlp.act](gate)[..., None] * hidden) + through_gate


def _slope(act: str, pre: Tensor) -> Tensor:
    """The derivative at each unit; 0 at a ReLU's kink, as autograd has it."""
    return torch.func.grad(lambda p: ACTIVATIONS[act](p).sum())(pre)


def _act_push(act: str, pre: Tensor, v: Tensor) -> Tensor:
    if act != "solu":
        return _slope(act, pre)[..., None] * v
    # x softmax(x) couples the units: its derivative is diag(s + x s) - (x s) s^T
    s = pre.softmax(-1)
    xs = pre * s
    return (s + xs)[..., None] * v - xs[..., None] * (s[..., None] * v).sum(-2, keepdim=True)


def _act_pull(act: str, pre: Tensor, u: Tensor) -> Tensor:
    if act != "solu":
        return _slope(act, pre)[..., None] * u
    s = pre.softmax(-1)
    xs = pre * s
    return (s + xs)[..., None] * u - s[..., None] * (xs[..., None] * u).sum(-2, keepdim=True)


def _check_width(segment: Segment, x: Tensor, vectors: Tensor, width: int) -> None:
    if x.shape[-1] != segment.d_in or vectors.shape[-2] != width:
        raise SegmentError(
            f"segment {segment.name} maps width {segment.d_in} to {segment.d_out}; got rows of width {x.shape[-1]} and "
            f"vectors of width {vectors.shape[-2]} where {width} was expected. Give activations collected at {segment.hook_in}"
        )

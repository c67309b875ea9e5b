"""Segment: the stretch of a model between two hook points; what a circuit explains, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..errors import SegmentError
from ..errors.door import at_the_door
from ..models.placing import HOST, blockwise
from .outside import Outside

#: nonlinearity by the name that TransformerLens gives it
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "solu": lambda x: x * F.softmax(x, dim=-1),
    "relu2": lambda x: F.relu(x).square(),
    "identity": lambda x: x,
}


@dataclass(frozen=True)
class MLPWeights:
    """The weights of one MLP, in TransformerLens' orientation (rows times matrix), for closed forms.

    pre = x @ W_in + b_in;  y = (act(x @ W_gate) * pre  if gated else  act(pre)) @ W_out + b_out.
    `W_out = None` ends the segment right behind the nonlinearity (hidden layers of a plain MLP).
    """

    W_in: Float[Tensor, "d_in m"]
    b_in: Float[Tensor, " m"]
    W_out: Float[Tensor, "m d_out"] | None = None
    b_out: Float[Tensor, " d_out"] | None = None
    act: str = "relu"
    W_gate: Float[Tensor, "d_in m"] | None = None

    def __call__(self, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows d_out"]:
        act = ACTIVATIONS[self.act]
        pre = x @ self.W_in + self.b_in
        post = act(pre) if self.W_gate is None else act(x @ self.W_gate) * pre
        if self.W_out is None:
            return post
        y = post @ self.W_out
        return y if self.b_out is None else y + self.b_out


@at_the_door
@dataclass(frozen=True)
class Segment:
    """A function between two hook points of a model, acting on each row (image or token position) by itself.

    Attributes:
        hook_in, hook_out: hook names as the model spells them.
        forward: [rows, d_in] -> [rows, d_out], what the model computes between them.
        d_in, d_out: the widths.
        mlp: the weights where the stretch is exactly one MLP; gives Jacobians and virtual weights in closed form.
        prenorm: what stands before the MLP inside the segment (LayerNorm when `hook_in` is `resid_mid`), else None;
            then forward(x) = mlp(prenorm(x)).
        reshape: "heads" takes the heads of hook points such as hook_z side by side: [..., heads, d_head] is read as one row
            of heads * d_head numbers. None expects one dimension of width.
        outside: how a pass shows where BOS and padding stand, which keep the model's own values; None where it is not known.
        home: the model's device; None where the weights say it, or nothing is known of it.

    Raises:
        SegmentError: widths that are not positive, or another `reshape`.

    Examples:
        >>> import torch
        >>> half = gl.Segment("hook_resid", "hook_mlp_out", lambda x: x[:, :24].relu(), d_in=64, d_out=24)
        >>> half.forward(torch.ones(5, 64)).shape
        torch.Size([5, 24])
    """

    hook_in: str
    hook_out: str
    forward: Callable[[Tensor], Tensor]
    d_in: int
    d_out: int
    mlp: MLPWeights | None = None
    prenorm: Callable[[Tensor], Tensor] | None = None
    reshape: str | None = None
    outside: Outside | None = field(default=None, repr=False, compare=False)
    home: torch.device | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if not (isinstance(self.hook_in, str) and isinstance(self.hook_out, str) and callable(self.forward)):
            raise SegmentError(
                f"a Segment takes two hook names and a function, got {self.hook_in!r}, {self.hook_out!r} and "
                f"{type(self.forward).__name__}. See examples/04_your_own_hook_point.py"
            )
        for width in (self.d_in, self.d_out):
            if not isinstance(width, int) or width < 1:
                raise SegmentError(f"segment {self.name}: a width is a whole number of at least 1, got {width!r}")
        if self.reshape not in (None, "heads"):
            raise SegmentError(
                f'segment {self.name}: reshape must be "heads" (heads side by side) or None, got {self.reshape!r}'
            )

    @property
    def name(self) -> str:
        return f"{self.hook_in} -> {self.hook_out}"

    @property
    def device(self) -> torch.device:
        """Where `forward` computes."""
        return self.home or (HOST if self.mlp is None else self.mlp.W_in.device)

    def outputs(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        """`forward` without derivatives, a few thousand rows at a time on its device; the answer lies where the rows do.

        Raises:
            SegmentError: rows of another width.
        """
        x = self.taken(x)
        with torch.no_grad():
            return blockwise(self.forward, self.device, x)

    def taken(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_in"]:
        """Rows as `forward` takes them, in the type of the weights where these are known.

        Raises:
            SegmentError: rows of another width.
        """
        if x.shape[1] != self.d_in:
            raise SegmentError(f"segment {self.name} reads rows of {self.d_in} numbers, got {x.shape[1]}")
        return x if self.mlp is None else x.to(self.mlp.W_in.dtype)

    def __repr__(self) -> str:
        kind = f", {self.mlp.act} MLP of {self.mlp.W_in.shape[1]}" if self.mlp else ""
        return f"Segment({self.name}: {self.d_in} -> {self.d_out}{kind})"

    def check(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"], tolerance: float = 1e-3) -> None:
        """Prove on cached rows that `forward` computes what the model does between the two hook points.

        Raises:
            SegmentError: with the relative error (Frobenius norm) when it is over `tolerance`.
        """
        error = self.misses(x, y)
        if error != error:  # NaN
            raise SegmentError(
                f"segment {self.name}: what the model computes there holds NaN or infinity, or its forward does: expected finite weights. "
                "Load or initialise the model again"
            )
        if not error <= tolerance:
            raise SegmentError(
                f"segment {self.name}: forward misses what the model computes by a relative error of {error:.2g} "
                f"(at most {tolerance:g} is accepted). Something else acts between the two hook points: "
                "another LayerNorm folding, or attention; choose other ends or give a `forward` of your own"
            )

    def misses(self, x: Float[Tensor, "rows d_in"], y: Float[Tensor, "rows d_out"]) -> float:
        """The relative error of `forward` on cached rows, in the Frobenius norm.

        Raises:
            SegmentError: it gives another shape than the model.
        """
        ours = self.outputs(x)
        if ours.shape != y.shape:
            raise SegmentError(
                f"segment {self.name}: forward gave shape {tuple(ours.shape)}, the model {tuple(y.shape)}"
            )
        return ((ours - y).norm() / y.norm().clamp_min(1e-12)).item()


def no_model(x: Tensor) -> Tensor:
    """The `forward` of a segment that was read from a file."""
    raise SegmentError("this circuit was loaded without its model; give Circuit.load the model's segments to run them")

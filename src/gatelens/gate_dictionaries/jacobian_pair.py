"""JacobianSAEPair: two TopK dictionaries trained so that few input features move each output feature (Farnik et al. 2025)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bases.sae.pair_training import falling, shuffled
from ..bases.sae.training import DictionaryTraining
from ..basis.linear import Basis
from ..codes.active import unit_rows_
from ..errors import BasisError
from ..errors.progress import bar
from ..segments import ACTIVATIONS, MLPWeights, Segment


@dataclass(frozen=True)
class JacobianSAEPair(DictionaryTraining):
    """Reconstruct x and y with k active features each, and keep the L1 norm of the active block of the Jacobian between them small.

    The block is dz_out / dz_in at the active features: encoder_out . J_mlp(x_hat) . decoder_in, [k, k] for each row, in closed form
    from the weights of the MLP. Its mean |entry| times `penalty` is added to the two relative squared errors.

    Attributes:
        penalty: 0 trains two plain TopK dictionaries.
        expansion, d_sae, k, ...: of both dictionaries, see `DictionaryTraining`; k is exact. A row costs k x k x d_mlp products: use
            small batches, and an accelerator for wide models.
    """

    penalty: float = 1.0
    _: KW_ONLY
    samples: int = 200_000
    batch_size: int = 128
    lr: float = 1e-3

    def __post_init__(self):
        super().__post_init__()
        if self.penalty < 0:
            raise BasisError(f"penalty must not be negative, got {self.penalty}")

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook name -> sae-lens TopK SAE, for both ends of each segment.

        Raises:
            BasisError: a segment that is not exactly one MLP without a gate, or segments that meet (a dictionary belongs to one pair).
        """
        ends = [hook for s in segments for hook in (s.hook_in, s.hook_out)]
        if len(set(ends)) < len(ends):
            raise BasisError(
                "segments meet at a hook point: a Jacobian pair is trained for one segment. Fit each segment by itself"
            )
        found: dict[str, Basis] = {}
        for segment in segments:
            found[segment.hook_in], found[segment.hook_out] = self.train(segment, acts[segment.hook_in])
        return found

    def train(self, segment: Segment, x: Float[Tensor, "rows d_in"]) -> tuple[Any, Any]:
        """The dictionaries at the input and the output of a segment; y is the model's own, computed from x."""
        mlp = segment.mlp
        if mlp is None or mlp.W_gate is not None or segment.prenorm is not None:
            raise BasisError(
                f"segment {segment.name} is not exactly one MLP without a gate: the Jacobian block is known in closed form only there. "
                'Choose mlp_in="mlp_in", or another recipe'
            )
        widths = [self.width_for(d) for d in (segment.d_in, segment.d_out)]
        with torch.no_grad():
            y = segment.forward(x[:10_000])
        generator = torch.Generator().manual_seed(self.seed)
        inner = _TopK(x, widths[0], int(self.k), generator)
        outer = _TopK(y, widths[1], int(self.k), generator)
        self._train(inner, outer, mlp, x, generator)
        return inner.sae_lens(segment.hook_in), outer.sae_lens(segment.hook_out)

    def _train(self, inner: _TopK, outer: _TopK, mlp: MLPWeights, x: Tensor, generator: torch.Generator) -> None:
        optimiser = torch.optim.Adam([*inner.parameters(), *outer.parameters()], lr=self.lr)
        plan = self.schedule(len(x))
        steps, batches = plan.steps, shuffled(len(x), plan.batch_size, generator)
        for step in bar(range(steps), "dictionaries", self.progress):
            for group in optimiser.param_groups:
                group["lr"] = self.lr * falling(step, steps)
            rows = x[next(batches)]
            on_in, value_in = inner.encode(rows)
            x_hat = inner.decode(on_in, value_in)
            loss = inner.relative_error(rows, x_hat)
            y, y_of_code = mlp(rows), mlp(x_hat)
            on_out, value_out = outer.encode(y)
            loss = loss + outer.relative_error(y, outer.decode(on_out, value_out))
            if self.penalty:
                on_code, _ = outer.encode(y_of_code)
                loss = loss + self.penalty * active_jacobian(inner, outer, mlp, x_hat, on_in, on_code).abs().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            unit_rows_(inner.W_dec)
            unit_rows_(outer.W_dec)


class _TopK(nn.Module):
    """A TopK dictionary with unit decoder rows: f = topk(relu((x - b) E + c)), x ~ f D + b."""

    def __init__(self, x: Tensor, width: int, k: int, generator: torch.Generator):
        super().__init__()
        directions = torch.randn(width, x.shape[1], generator=generator).to(x)
        unit_rows_(directions)
        self.k = k
        self.W_dec, self.W_enc = nn.Parameter(directions), nn.Parameter(directions.T.clone() * 0.5)
        self.b_enc, self.b_dec = nn.Parameter(x.new_zeros(width)), nn.Parameter(x.mean(0))
        self.power = float((x - x.mean(0)).square().sum(1).mean().clamp_min(1e-12))

    def encode(self, x: Float[Tensor, "rows d"]) -> tuple[Tensor, Tensor]:
        """(features, values) of the active ones, [rows, k] each."""
        pre = (x - self.b_dec) @ self.W_enc + self.b_enc
        value, on = pre.topk(self.k, dim=1)
        return on, value.clamp_min(0)

    def decode(self, on: Tensor, value: Tensor) -> Float[Tensor, "rows d"]:
        return (value[..., None] * self.W_dec[on]).sum(1) + self.b_dec

    def relative_error(self, x: Tensor, x_hat: Tensor) -> Tensor:
        return (x - x_hat).square().sum(1).mean() / self.power

    def sae_lens(self, hook: str) -> Any:
        """As sae-lens' TopK SAE."""
        from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

        d_in, d_sae = self.W_enc.shape
        sae = TopKSAE(
            TopKSAEConfig(k=self.k, d_in=d_in, d_sae=d_sae, apply_b_dec_to_input=True, device=str(self.W_enc.device))
        )
        sae.cfg.metadata.hook_name = hook
        for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
            getattr(sae, name).data = getattr(self, name).detach().clone()
        return sae.eval().requires_grad_(False)


def active_jacobian(
    inner: Any, outer: Any, mlp: MLPWeights, x: Float[Tensor, "rows d_in"], on_in: Tensor, on_out: Tensor
) -> Float[Tensor, "rows k_out k_in"]:
    """d(active output features) / d(active input features) at x, row = target; kinks of TopK and ReLU are left out."""
    pre = x @ mlp.W_in + mlp.b_in
    slope = activation_slope(mlp.act, pre)
    pushed = inner.W_dec[on_in] @ mlp.W_in  # [rows, k_in, m]
    readers = outer.W_enc.T[on_out]  # [rows, k_out, d_out]
    pulled = readers if mlp.W_out is None else readers @ mlp.W_out.T  # [rows, k_out, m]
    return (pulled * slope[:, None, :]) @ pushed.transpose(1, 2)


def activation_slope(name: str, pre: Tensor) -> Tensor:
    """act'(pre), itself differentiable for the smooth ones."""
    if name == "relu":
        return (pre > 0).to(pre.dtype)
    if name == "identity":
        return torch.ones_like(pre)
    if name == "gelu":
        return 0.5 * (1 + torch.erf(pre / math.sqrt(2))) + pre * torch.exp(-0.5 * pre.square()) / math.sqrt(2 * math.pi)
    if name == "solu":
        raise BasisError("solu mixes neurons: its slope is no diagonal. Use another recipe")
    with torch.enable_grad():
        at = pre if pre.requires_grad else pre.detach().requires_grad_()
        return torch.autograd.grad(ACTIVATIONS[name](at).sum(), at, create_graph=True)[0]

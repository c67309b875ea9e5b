"""LogitTuning: gates trained on for what the rest of the model makes of them, by the divergence of its predictions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from gatelens.bases.sae.training import falling
from gatelens.codes.active import decode_active, unit_rows_
from gatelens.codes.csr import csr
from gatelens.connectors import Connector
from gatelens.data import Batch, Batches
from gatelens.errors import BasisError
from gatelens.errors.progress import bar
from gatelens.gate_dictionaries.gate_basis import GateBasis
from gatelens.models import device_of, host, run_hooked, there
from gatelens.segments import Segment


@dataclass(frozen=True)
class LogitTuning:
    """Minimise KL(model || model with the gates in the segment's place) over whole examples; parents and thresholds stay.

    Attributes:
        model: runs with hooks and gives logits. batches: examples of the fitting part.
        passes: over the batches. lr: of Adam, relative to the mean size of each parameter's entries.
    """

    model: Any
    batches: Batches
    passes: int = 1
    lr: float = 3e-3
    progress: bool | None = None

    def __post_init__(self):
        if self.passes < 1 or self.lr <= 0:
            raise BasisError(f"passes must be at least 1 and lr positive; got {self.passes} and {self.lr}")

    def tune(self, gates: GateBasis, segment: Segment) -> GateBasis:
        """The gates with other weights, biases and dictionary; the same wires, and the same bypass where there is one.

        Raises:
            BasisError: gates of another segment.
        """
        gates.check(segment)
        trained = _Trained(there(gates, device_of(self.model)))
        optimiser = torch.optim.Adam(
            [
                {"params": [p], "size": self.lr * float(p.detach().abs().mean().clamp_min(1e-8))}
                for p in trained.parameters
            ],
            betas=(0.9, 0.99),
        )
        steps = self.passes * len(self.batches)
        for step in bar(range(steps), "gates on logits", self.progress):
            for group in optimiser.param_groups:
                group["lr"] = group["size"] * falling(step, steps)
            loss, count = divergence(self.model, self.batches.batch(step % len(self.batches)), segment, trained)
            if not count:
                continue
            grads = torch.autograd.grad(loss / count, trained.parameters)
            for parameter, grad in zip(trained.parameters, grads, strict=True):
                parameter.grad = grad
            optimiser.step()
            unit_rows_(trained.dictionary)
        return host(trained.basis())


class _Trained:
    """Gates whose active entries carry derivatives: x -> y."""

    def __init__(self, gates: GateBasis):
        self.gates = gates
        self.parents, weights = gates.connector.padded()
        self.weights, self.bias = weights.clone().requires_grad_(), gates.connector.bias.clone().requires_grad_()
        self.dictionary, self.offset = gates.W_dec.clone().requires_grad_(), gates.b_dec.clone().requires_grad_()
        self.parameters = [self.weights, self.bias, self.dictionary, self.offset]

    def __call__(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_out"]:
        with torch.no_grad():
            f = self.gates.basis_in.encode(x)
            rows, cols = (self.connector()(f) != 0).nonzero(as_tuple=True)
        value = self.bias[cols] + (self.weights[cols] * f[rows[:, None], self.parents[cols]]).sum(1)
        y, bypass = decode_active(self.dictionary, rows, cols, value, len(x)) + self.offset, self.gates.bypass_in
        return y if bypass is None else y + f @ bypass

    def connector(self) -> Connector:
        was = self.gates.connector
        wired = torch.arange(self.weights.shape[1], device=self.weights.device) < was.fan_in()[:, None]
        values, shape = self.weights.detach()[wired], (was.weight.shape[0], was.weight.shape[1])
        weight = csr(was.weight.crow_indices(), was.weight.col_indices(), values, shape)
        return replace(was, weight=weight, bias=self.bias.detach().clone())

    def basis(self) -> GateBasis:
        g = self.gates
        return GateBasis(
            g.basis_in, self.connector(), self.dictionary, self.offset.detach(), g.d_in, g.bypass_in, g.hook_in, g.hook_out,
            {**g.info, "tuned": "KL through the rest of the model"},
        )  # fmt: skip


def divergence(model: Any, batch: Batch, segment: Segment, replacement: Any) -> tuple[Tensor, int]:
    """Sum over the positions that count of KL(model || model with `replacement(x)` for the segment's output), and their number.

    The model's own logits are constants; derivatives reach what `replacement` is made of.
    """
    seen: list[Tensor] = []
    keep = batch.keep.to(device_of(model))

    def read(value: Tensor, hook: Any = None) -> None:
        seen[:] = [value.detach()]

    def write(value: Tensor, hook: Any = None) -> Tensor:
        rows = replacement(seen[0].reshape(-1, segment.d_in)).reshape(value.shape).to(value.dtype)
        return torch.where(keep[..., None], rows, value)

    with torch.no_grad():
        clean = F.log_softmax(run_hooked(model, batch.inputs, batch.mask)[keep].float(), dim=-1)
    hooks = [(segment.hook_in, read), (segment.hook_out, write)]
    replaced = F.log_softmax(run_hooked(model, batch.inputs, batch.mask, hooks)[keep].float(), dim=-1)
    return F.kl_div(replaced, clean, reduction="sum", log_target=True), int(keep.sum())


def mean_divergence(model: Any, batches: Batches, segment: Segment, gates: GateBasis) -> float:
    """KL in nats a position, over all batches."""
    with torch.no_grad():
        parts = [divergence(model, batch, segment, gates.reconstruct) for batch in batches]
    return sum(float(loss) for loss, _ in parts) / max(sum(count for _, count in parts), 1)

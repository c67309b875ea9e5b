"""Polish: a few epochs of gradient descent on the wires that are there, judged at the model's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..codes.csr import csr
from ..connectors import Connector
from ..data import Batches
from ..errors.progress import bar
from ..models import device_of, host, run_cached, run_hooked
from .splicing import splice


@dataclass(frozen=True)
class Polish:
    """Minimise KL(model | model with all segments replaced) + feature_weight * feature error, the support fixed.

    The feature error is squared error summed over features, over the mean squared norm of the features; so its weight
    does not depend on their scale.
    """

    epochs: int = 3
    lr: float = 5e-4
    feature_weight: float = 0.3
    batch_size: int = 512
    seed: int = 0
    progress: bool | None = None

    def fit(self, model: Any, circuit: Any, batches: Batches) -> dict[str, Connector]:
        """Polished connectors of `circuit`, segment name -> connector, trained on the batches of the fitting part."""
        circuit = circuit.at(device_of(model))
        trained = {name: _Trainable(connector) for name, connector in circuit.connectors.items()}
        polished = SimpleNamespace(segments=circuit.segments, bases=circuit.bases, connectors=trained)
        parameters = [p for t in trained.values() for p in (t.values, t.bias)]
        optimiser = torch.optim.Adam(parameters, lr=self.lr)
        steps = self.epochs * -(-batches.examples // self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        generator = torch.Generator().manual_seed(self.seed)
        for _ in bar(range(self.epochs), "polish", self.progress):
            for rows in torch.randperm(batches.examples, generator=generator).split(self.batch_size):
                loss = self._loss(model, polished, batches.part(rows, batches.name))
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                schedule.step()
        return {name: host(t.connector()) for name, t in trained.items()}

    def _loss(self, model: Any, circuit: Any, part: Batches) -> Tensor:
        outs = {s.hook_out: circuit.bases[s.hook_out] for s in circuit.segments}
        with torch.no_grad():
            logits, cache = run_cached(model, part.inputs, part.mask, list(outs))
            true = {hook: basis.encode(cache[hook]) for hook, basis in outs.items()}
        for trainable in circuit.connectors.values():
            trainable.seen.clear()
        replaced = run_hooked(model, part.inputs, part.mask, splice(circuit))
        kl = F.kl_div(replaced.log_softmax(-1), logits.log_softmax(-1), log_target=True, reduction="batchmean")
        return kl + self.feature_weight * _feature_error(circuit, true)


def _feature_error(circuit: Any, true: Mapping[str, Tensor]) -> Tensor:
    error: Any = 0.0
    for segment in circuit.segments:
        target, predicted = true[segment.hook_out], circuit.connectors[segment.name].seen[-1]
        error = error + (predicted - target).square().sum(-1).mean() / target.square().sum(-1).mean().clamp_min(1e-8)
    return error


class _Trainable:
    """A connector whose weights can be trained; its sparse matrix as a dense one with a fixed support."""

    def __init__(self, connector: Connector):
        self.origin = connector
        self.values = connector.weight.values().clone().requires_grad_()
        self.bias = connector.bias.clone().requires_grad_()
        crow = connector.weight.crow_indices()
        self.index = (torch.repeat_interleave(crow.diff()), connector.weight.col_indices())
        self.seen: list[Tensor] = []

    def __call__(self, f_in: Tensor) -> Tensor:
        weight = self.bias.new_zeros(self.origin.weight.shape).index_put(self.index, self.values)
        out = Connector.activate(f_in @ weight.T + self.bias, self.origin.threshold, self.origin.activation)
        self.seen.append(out)
        return out

    def connector(self) -> Connector:
        origin = self.origin.weight
        shape = (origin.shape[0], origin.shape[1])
        weight = csr(origin.crow_indices(), origin.col_indices(), self.values.detach(), shape)
        return replace(self.origin, weight=weight, bias=self.bias.detach(), solver=f"{self.origin.solver}, polished")

"""The changes under which a reading is found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..data import Batches
from ..errors import DataError
from ..evaluation.baselines import random_weights
from ..models import Model
from .perturb import fine_tuned, noise_for_rise, noisy_model


@dataclass(frozen=True)
class Condition:
    """One change: find the circuit again with this model, these fitting data and this seed.

    Attributes:
        model, fit, seed: what the reading is found with.
        keep_bases: find only wires and gates again, in the first reading's coordinates.
        same_coordinates: whether the model's hook points mean the same as before, so that directions can be compared;
            a retrained model's do not, and its features are matched by activations.
        control: a null that nothing should survive.
    """

    name: str
    model: Any = field(repr=False)
    fit: Batches = field(repr=False)
    seed: int = 0
    keep_bases: bool = False
    same_coordinates: bool = True
    control: bool = False
    note: str = ""


def standard_conditions(
    model: Model,
    fit: Batches,
    seed: int = 0,
    rises: Sequence[float] = (0.001, 0.01),
    relative: Sequence[float] = (),
    steps: int = 100,
    retrained: Any = None,
) -> tuple[Batches, list[Condition]]:
    """The half of the fitting data that the first reading is to be found on, and the changes.

    Args:
        rises: shares by which noise in the weights is to raise the loss (0.001 for .1 %).
        relative: further noise of so many times each tensor's root mean square.
        steps: of fine-tuning; 0 for none.
        retrained: a model of the same shape from another seed, if there is one.
    """
    first, second = halves(fit, seed)
    found = [
        Condition("other inputs, bases kept", model, second, seed, keep_bases=True),
        Condition("other inputs", model, second, seed),
        Condition("other seed", model, first, seed + 1),
    ]
    for rise in rises:
        scale, reached, noisy = noise_for_rise(model, first, rise, seed)
        note = f"relative noise {scale:.3g}, loss {reached:+.2%}"
        found.append(Condition(f"weight noise, loss +{rise:.1%}", noisy, first, seed, note=note))
    for scale in relative:
        found.append(Condition(f"weight noise {scale:.0%}", noisy_model(model, scale, seed), first, seed))
    if steps:
        found.append(Condition(f"fine-tuned {steps} steps", fine_tuned(model, first, steps, seed=seed), first, seed))
    if retrained is not None:
        found.append(Condition("retrained", retrained, first, seed, same_coordinates=False))
    null = random_weights(model, seed)
    found.append(Condition("random weights", null, first, seed, same_coordinates=False, control=True))
    return first, found


def halves(batches: Batches, seed: int = 0) -> tuple[Batches, Batches]:
    """Two halves that share no document: images drawn at random, windows of text by the order of their documents.

    A window that holds documents of both halves is left out.

    Raises:
        DataError: fewer than two documents.
    """
    documents = torch.unique(batches.document)
    if len(documents) < 2:
        raise DataError(f"{batches.name} has {len(documents)} document: two halves that share none need at least two")
    if batches.document.ndim == 1:
        order = documents[torch.randperm(len(documents), generator=torch.Generator().manual_seed(seed))]
        mine = torch.isin(batches.document, order[: len(order) // 2])
        return _taken(batches, mine, "first half"), _taken(batches, ~mine, "second half")
    # windows of text may hold several documents, and a document may run on into the next window
    middle = documents[len(documents) // 2]
    first, second = (batches.document < middle).all(1), (batches.document >= middle).all(1)
    return _taken(batches, first, "first half"), _taken(batches, second, "second half")


def _taken(batches: Batches, rows: torch.Tensor, name: str) -> Batches:
    return batches.part(rows, f"{batches.name}, {name}")

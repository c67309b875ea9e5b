"""Examples: what a feature responds to, as token windows, as pictures, or as numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch

from ..activations.collecting import with_origins
from ..basis.output import at_output
from ..gates import Gate
from ..gates.rule import Literal
from . import contexts, images
from .cards import Examples, FeatureView
from .document import figure
from .drawing import bars
from .labels import Labels
from .truth import rule_of


@dataclass(frozen=True)
class Window:
    """A token window as shown, with the value in its middle."""

    tokens: Sequence[contexts.Token]
    value: float

    @cached_property
    def middle(self) -> int:
        for place, token in enumerate(self.tokens):
            if token.centre:
                return place
        return 0

    @property
    def before(self) -> Sequence[contexts.Token]:
        return self.tokens[: self.middle]

    @property
    def after(self) -> Sequence[contexts.Token]:
        """The token in the middle and what follows it."""
        return self.tokens[self.middle :]


class Numbers:
    """The evidence that needs neither a tokenizer nor pictures: density and counts."""

    top, each = 8, 4

    def __init__(self, acts: Any):
        self.acts = acts
        self.same: np.ndarray | None = None
        self.labels: Labels | None = None

    def view(self, features: contexts.FeatureRows, hook: str, feature: int, brief: bool, **rest: Any) -> FeatureView:
        """Everything about one feature; `brief` leaves out the intervals below the strongest rows."""
        _, values = features.on(feature)
        counts, largest = contexts.histogram(values)
        found = contexts.groups(
            features, feature, self.top if not brief else self.top_brief, 0 if brief else self.each, self.same
        )
        return FeatureView(
            feature,
            groups=self.shown(found, features, feature, largest),
            density=bars(counts.tolist()) if len(values) and not brief else "",
            firings=len(values),
            rows=features.rows,
            largest=largest,
            **(self.fields(hook, feature, found) | rest),
        )

    top_brief = 5

    def fields(self, hook: str, feature: int, found: Sequence[contexts.Group]) -> dict[str, Any]:
        return {}

    def shown(
        self, found: Sequence[contexts.Group], features: contexts.FeatureRows, feature: int, largest: float
    ) -> list[Examples]:
        """Every group's examples, where there are any."""
        made = (self.examples(g, features, feature, largest) for g in found)
        return [e for e in made if e is not None]

    def examples(
        self, group: contexts.Group, features: contexts.FeatureRows, feature: int, largest: float
    ) -> Examples | None:
        """One group's; None where there is nothing to see but numbers."""
        return None


class Texts(Numbers):
    """Token windows around the rows."""

    top, each, top_brief = 6, 2, 5

    def __init__(self, acts: Any, tokenizer: Any):
        super().__init__(acts)
        self.windows = contexts.Windows(acts, tokenizer)
        self.same = self.windows.marks()
        self.labels = Labels(acts.token, self.windows.text)

    def shown(self, found, features, feature, largest):
        if not found:
            return []
        rows = np.concatenate([g.rows for g in found])  # looked up together: a page has thousands of features
        around, values = self.windows.around(rows, features, feature), features.value(feature, rows).tolist()
        every = iter([Window(tokens, v) for tokens, v in zip(around, values, strict=True)])
        taken = [(g, list(islice(every, len(g.rows)))) for g in found]
        return [Examples(g.name, g.note, windows=w, largest=largest) for g, w in taken if w]


class Pictures(Numbers):
    """Thumbnails of the rows' images, and what a feature reads of the pixels."""

    top, each, top_brief = 8, 4, 8

    def __init__(self, acts: Any, batches: Any, model: Any, bases: Mapping[str, Any], source: Mapping[str, str]):
        super().__init__(acts)
        self.inputs = batches.inputs
        self.side = images.side_of(self.inputs.flatten(1).shape[1])
        # a row's image: the one whose document it is, else the one at its place
        self.place = _places(acts.document, batches)
        self.model, self.bases, self.source = model, bases, source
        self.labels = Labels(acts.token, str)

    def pictures(self, rows: np.ndarray) -> torch.Tensor:
        return self.inputs[self.place[torch.as_tensor(np.asarray(rows).copy())]]

    def examples(self, group, features, feature, largest):
        rows = group.rows
        if self.side is None or not len(rows):
            return None
        stack = self.pictures(rows).reshape(-1, self.side, self.side)
        values, labels = (
            features.value(feature, rows),
            self.acts.token[torch.as_tensor(np.asarray(rows).copy())].tolist(),
        )
        captions = [f"“{label}” {figure(float(v), 1)}" for label, v in zip(labels, values, strict=True)]
        strip = images.strip(stack)
        return Examples(group.name, group.note, strip=strip, shown=len(stack), captions=captions, largest=largest)

    def fields(self, hook: str, feature: int, found: Sequence[contexts.Group]) -> dict[str, Any]:
        if self.side is None or not found:
            return {}
        top = self.pictures(found[0].rows)
        mean = images.strip(top.mean(0).reshape(1, self.side, self.side))
        if self.model is None:
            return {"mean_url": mean}
        basis = self.bases[hook]
        dictionary = at_output(basis)
        at, read = hook if dictionary.reads_output else self.source[hook], dictionary.read
        gradient = images.pixel_field(self.model, read, top, at, feature)
        if gradient is None:
            return {"mean_url": mean}
        url, largest, bad = images.field(gradient.reshape(self.side, self.side))
        return {"mean_url": mean, "field_url": url, "field_top": largest, "field_bad": bad}


def _places(document: torch.Tensor, batches: Any) -> torch.Tensor:
    """[rows] index of each row's image among the inputs."""
    where = {int(d): i for i, d in enumerate(batches.document.tolist())}
    return torch.tensor([where.get(int(d), i) for i, d in enumerate(document.tolist())])


def source_of_examples(
    acts: Any, batches: Any = None, model: Any = None, tokenizer: Any = None, circuit: Any = None
) -> Numbers:
    """Pictures when the inputs are float rows, text when there is a tokenizer, else numbers."""
    inputs = None if batches is None else batches.inputs
    if inputs is not None and inputs.is_floating_point() and inputs.ndim == 2:
        source = {s.hook_out: s.hook_in for s in circuit.segments}
        return Pictures(acts, batches, model, circuit.bases, source)
    if tokenizer is not None and with_origins(acts) is not None:
        return Texts(acts, tokenizer)
    return Numbers(acts)


def mistakes(
    gate: Gate, f_in: contexts.FeatureRows, f_out: contexts.FeatureRows, source: Numbers, most: int = 4
) -> list[Examples]:
    """Rows on which the rule says on and the output is off, and the reverse: the strongest of each.

    Rows on which the output is on, yet not above its level, are neither.
    """
    rule = rule_of(gate)
    if rule is None or gate.mcc is None:
        return []
    allowed = rule.open_rows([_above(f_in, literal) for literal in rule.literals])
    positive, amounts = f_out.on(gate.out)
    fired = positive[amounts > gate.level]
    wrong_on, wrong_off = _without(allowed, positive, f_out.rows), _without(fired, allowed, f_out.rows)
    strength = sum(w * f_in.value(i, wrong_on) for i, w in zip(gate.inputs, gate.weights, strict=True))
    by_amount = f_out.value(gate.out, wrong_off)
    largest = float(amounts.max()) if len(amounts) else 0.0
    groups = []
    for name, where, by, of in (
        ("predicted on, but it was off", wrong_on, strength, allowed),
        ("predicted off, but it fired", wrong_off, by_amount, fired),
    ):
        order = np.argsort(-np.asarray(by), kind="stable")[:most]
        note = f"{len(where):,} of {len(of):,} rows"
        groups.append(contexts.Group(name, where[order], np.asarray(by)[order], len(where), note))
    seen = {e.name: e for e in source.shown(groups, f_out, gate.out, largest)}
    return [seen.get(g.name) or Examples(g.name, g.note) for g in groups]


def _without(rows: np.ndarray, others: np.ndarray, number: int) -> np.ndarray:
    """Rows that are not among the others, of so many."""
    among = np.zeros(number, bool)
    among[others] = True
    return rows[~among[rows]]


def _above(features: contexts.FeatureRows, literal: Literal) -> np.ndarray:
    """The rows on which a literal is on, ascending."""
    rows, values = features.on(literal.feature)
    return rows[values > literal.level]

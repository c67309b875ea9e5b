"""label: names for output features, made of their contexts by any callable, and how well each name tells where its feature is on.

Half of the documents are shown to whoever names a feature, the other half decide how good the name is: of contexts in which the
feature is on and contexts in which it is not, which does the name fit? Beside it stands the same figure for the name of another
feature: what a name scores that has nothing to do with the feature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import store
from ..activations import Activations
from ..circuits import Circuit
from ..errors import DataError
from ..errors.progress import bar
from .contexts import FeatureRows, Windows, groups
from .known_features import rows_of
from .labels import Labels

#: contexts that are shown for a name, and of either kind that decide about it
SHOWN, JUDGED = 12, 20

ASK = (
    "Each line is a piece of text; the token between [[ and ]] is where one feature of a language model is strongly on. "
    "Say in at most six words what these places have in common.\n\n"
)

Describe = Callable[[str], str]
Judge = Callable[[str, Sequence[str]], Sequence[bool]]


@dataclass(frozen=True)
class OutputLabel:
    """A name of one output feature.

    Attributes:
        score: balanced accuracy of the name on held-out contexts (half of them is chance); shuffled: of another feature's
            name on the same contexts. None where nothing judged, or where too few contexts are there.
    """

    segment: str
    hook: str
    out: int
    text: str
    score: float | None = None
    shuffled: float | None = None
    contexts: int = 0


@dataclass(frozen=True)
class Names:
    """Names of output features; hand them to `views.page(labels=names)`."""

    labels: tuple[OutputLabel, ...]

    def __call__(self, hook: str, feature: int) -> str:
        """The name of a feature at a hook point; empty where it has none."""
        return next((x.text for x in self.labels if (x.hook, x.out) == (hook, feature)), "")

    def __repr__(self) -> str:
        known = [x for x in self.labels if x.score is not None and x.shuffled is not None]
        if not known:
            return f"{len(self.labels)} names, not judged"
        score, other = (float(np.mean([getattr(x, n) for x in known])) for n in ("score", "shuffled"))
        return (
            f"{len(self.labels)} names; balanced accuracy {score:.2f}, of shuffled names {other:.2f}, over {len(known)}"
        )


def label(
    circuit: Circuit,
    acts: Activations,
    describe: Describe | None = None,
    judge: Judge | None = None,
    *,
    tokenizer: Any,
    most: int = 50,
    cache: str | Path | None = None,
) -> Names:
    """Names for the circuit's output features with rules, the best first.

    Args:
        acts: held-out activations at the segments' hook points.
        describe: a question with contexts -> a name, from whatever client you have; None names features by their tokens.
        judge: (name, contexts) -> for each context whether the name fits; None judges names of tokens alone.
        most: features to name.
        cache: a JSON file in which answers are kept, so that no question is asked twice.

    Returns:
        `Names`: call it with (hook name, feature), or hand it to `views.page(labels=...)`. A name is judged by balanced accuracy,
        .5 for one that says nothing.

    Raises:
        DataError: activations without documents to hold out, or an answer that is no text.

    Examples:
        >>> lm = gl.load_model("gpt2-mini")
        >>> ask, judge = lambda question: "loud", lambda name, contexts: [True] * len(contexts)
        >>> gl.label(circuit, unseen, ask, judge, tokenizer=lm.tokenizer, most=3)
        3 names; balanced accuracy 0.50, of shuffled names 0.50, over 3
    """
    if len(np.unique(np.asarray(acts.document))) < 2:
        raise DataError("names are judged on documents that they were not made from: expected at least two, got one")
    answers = _Answers(Path(cache) if cache is not None else None)
    found: list[_Feature] = []
    for segment in circuit.segments:
        gates = [g for g in circuit.gates.get(segment.name, []) if g.rule is not None or g.excite]
        gates = sorted(gates, key=lambda g: -(g.mcc or 0.0))[: most - len(found)]
        rows = rows_of(circuit, acts, segment, gates)[1]
        windows = Windows(acts, tokenizer)
        tokens = Labels(acts.token, windows.text)
        found += [_Feature(segment.name, segment.hook_out, g.out, rows, windows, tokens, g.level) for g in gates]
    texts = [_named(f, describe, answers) for f in bar(found, "names")]
    judged = judge if judge is not None else _by_tokens if describe is None else None
    labels = []
    for place, feature in enumerate(bar(found, "judging names")):
        other = texts[(place + 1 + len(found) // 2) % len(found)] if len(found) > 1 else None
        labels.append(_judged(feature, texts[place], other, judged, answers if judge is not None else None))
    answers.keep()
    return Names(tuple(labels))


@dataclass(frozen=True)
class _Feature:
    """One output and where its contexts come from."""

    segment: str
    hook: str
    out: int
    rows: FeatureRows
    windows: Windows
    tokens: Labels
    level: float

    def shown(self) -> list[str]:
        """Contexts of the documents that a name is made from, the strongest first."""
        even = self._half(0)
        rows = [int(r) for g in groups(self.rows, self.out, SHOWN * 4, 0, self.windows.marks()) for r in g.rows]
        return [self.context(r) for r in rows if even[r]][:SHOWN]

    def held_out(self) -> tuple[list[int], list[int]]:
        """Rows of the other documents: some with the output on, from all its range, and some where it is silent."""
        odd = self._half(1)
        rows, values = self.rows.on(self.out)
        on = rows[(values > self.level) & odd[rows]]
        silent = np.setdiff1d(np.flatnonzero(odd), rows)
        random = np.random.default_rng(self.out)
        return tuple(sorted(random.permutation(r)[:JUDGED].tolist()) for r in (on, silent))  # pyright: ignore

    def _half(self, which: int) -> np.ndarray:
        _, place = np.unique(self.windows.document, return_inverse=True)
        return place.reshape(-1) % 2 == which

    def context(self, row: int) -> str:
        """A row's text with its token marked."""
        shown = self.windows.window(row, self.rows, self.out)
        return "".join(f"[[{t.text}]]" if t.centre else t.text for t in shown)


def _named(feature: _Feature, describe: Describe | None, answers: _Answers) -> str:
    if describe is None:
        return " | ".join(text for text, _ in feature.tokens.shares(feature.rows, feature.out))
    question = ASK + "\n".join(feature.shown())
    answer = answers.ask("name", question, lambda: describe(question))
    if not isinstance(answer, str):
        raise DataError(f"`describe` answers a question with a text; got {type(answer).__name__} for OF_{feature.out}")
    return " ".join(answer.split())[:120]


def _by_tokens(text: str, contexts: Sequence[str]) -> list[bool]:
    """Whether the marked token is one of those that the name lists."""
    named = set(text.split(" | "))
    marked = [c.partition("[[")[2].partition("]]")[0] for c in contexts]
    return [(m.strip() or m) in named for m in marked]


def _judged(
    feature: _Feature, text: str, other: str | None, judge: Judge | None, answers: _Answers | None
) -> OutputLabel:
    on, silent = feature.held_out()
    where = feature.segment, feature.hook, feature.out, text
    if judge is None or not on or not silent:
        return OutputLabel(*where)
    contexts = [feature.context(r) for r in (*on, *silent)]

    def score(name: str) -> float:
        def asked() -> list[bool]:
            return [bool(x) for x in judge(name, contexts)]

        fits = answers.ask("fits", "\n".join([name, *contexts]), asked) if answers is not None else asked()
        if len(fits) != len(contexts):
            raise DataError(
                f"`judge` says of each context whether the name fits: expected {len(contexts)} answers, got {len(fits)}"
            )
        return float((np.mean(fits[: len(on)]) + 1 - np.mean(fits[len(on) :])) / 2)

    return OutputLabel(*where, score(text), score(other) if other is not None else None, len(contexts))


class _Answers:
    """What was asked before, by the hash of the question."""

    def __init__(self, path: Path | None):
        self.path = path
        self.known: dict[str, Any] = {}
        if path is not None and store.check_target(path).is_file():
            with store.understood(path):
                self.known = dict(store.parse_json(path.read_bytes(), path))

    def ask(self, what: str, question: str, answer: Callable[[], Any]) -> Any:
        key = f"{what}-{hashlib.sha256(question.encode('utf-8', 'replace')).hexdigest()[:24]}"
        if key not in self.known:
            self.known[key] = answer()
            self.keep()
        return self.known[key]

    def keep(self) -> None:
        if self.path is not None:
            store.replace_file(self.path, store.dump_json(self.known))

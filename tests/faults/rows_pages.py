"""Rows about what is shown: hostile text, numbers that are none, repeated contexts, the same figure twice."""

from __future__ import annotations

import base64
import functools
import io
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault import HOOKS, Fault, Injected, tiny_model
from markupsafe import Markup
from PIL import Image

from gatelens import Activations, Circuit, Gate, GateKind, Neurons, mlp_segments, type_gates, views
from gatelens.connectors import Connector
from gatelens.views.cards import card
from gatelens.views.contexts import FeatureRows, Windows, groups
from gatelens.views.document import document, environment
from gatelens.views.images import field

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<!--",
    "<img src=x onerror=alert(1)>",
    "&amp;",
    "'\"><b>",
    "javascript:alert(1)",
    "]]>",
    "\u2028{{7*7}}",
)


class Page(HTMLParser):
    """The tags, ids and text of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, wanted: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == wanted]


@functools.cache
def unescaped() -> Any:
    """The templates with escaping turned off."""
    env = environment.__wrapped__()
    env.autoescape = False
    return env


class Tokenizer:
    def __init__(self, words: tuple[str, ...]):
        self.words = words

    def decode(self, ids: list[int]) -> str:
        return "".join(self.words[i % len(self.words)] for i in ids)


def shown_circuit(name: str) -> tuple[Circuit, Activations]:
    """A circuit of neurons over rows that are tokens, read as gates."""
    model = tiny_model()
    segments = mlp_segments(model)
    x = torch.rand(300, 6, generator=torch.Generator().manual_seed(0)) * (
        torch.rand(300, 6, generator=torch.Generator().manual_seed(1)) < 0.4
    )
    y = torch.zeros(300, 6)
    y[:, 0], y[:, 1] = x[:, 2], x[:, 3] + x[:, 4]
    weight = torch.zeros(6, 6)
    weight[0, 2] = weight[1, 3] = weight[1, 4] = 1.0
    wires = Connector.from_dense(weight, torch.zeros(6))
    rows = torch.arange(300)
    acts = Activations({HOOKS[0]: x, HOOKS[1]: y}, rows // 30, rows % 30, rows % 8, name)
    circuit = Circuit(
        segments,
        Neurons().fit(segments, acts),
        {segments[0].name: wires},
        {segments[0].name: type_gates(wires, x, y)},
        {"model": name, "data": name},
    )
    return circuit, acts


def page_with(words: tuple[str, ...], name: str) -> Page:
    circuit, acts = shown_circuit(name)
    html = views.page(circuit, acts, None, tokenizer=Tokenizer(words), title=name, labels=lambda hook, feature: name)
    return Page(html.text)


def hostile_text(folder: Path) -> Injected:
    """Tokens, labels, title, model and data name that try to be markup: the page is built as with harmless ones."""
    name = "".join(HOSTILE)

    def after(page: Page) -> None:
        harmless = page_with(tuple("abcdefgh"), "name")
        assert page.tags == harmless.tags
        assert not [a for a in page.attributes if a[1].startswith("on")]
        assert not [v for v in page.all("href") + page.all("src") if v.startswith("javascript:")]
        assert "<img src=x onerror=alert(1)>" in page.text
        assert "&amp;" in page.text
        assert "{{7*7}}" in page.text  # no template of theirs was filled in

    return Injected(lambda: page_with(HOSTILE, name), after)


def nan_on_display(folder: Path) -> Injected:
    values = np.ones((4, 4))
    values[1, 2], values[3, 3] = np.nan, np.inf

    def after(result: Any) -> None:
        address, top, count = result
        assert (count, top) == (2, 1.0)
        picture = np.array(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGB"))
        side = len(picture) // 4
        grey = (picture == 0x77).all(-1)
        cells = grey.reshape(4, side, 4, side).any((1, 3))
        assert cells.nonzero()[0].tolist() == [1, 3]  # the two cells that are hatched, and no other
        assert cells.nonzero()[1].tolist() == [2, 3]

    return Injected(lambda: field(values), after)


def repeated_contexts(folder: Path) -> Injected:
    """Forty documents, thirty of them the same three tokens."""
    token = torch.tensor([[5, 6, 7]] * 30 + [[1, 2, i + 10] for i in range(10)]).flatten()
    rows = torch.arange(120)
    acts = Activations({}, rows // 3, rows % 3, token)
    on = (rows % 3 == 2).float() * (200 - rows)

    def act() -> Any:
        marks = Windows(acts, Tokenizer(tuple("abcdefgh"))).marks()
        return groups(FeatureRows.of(on[:, None]), 0, top=6, each=0, same=marks)[0]

    def after(group: Any) -> None:
        assert group.population == 40  # the count is kept
        contexts = [tuple(token[r - 2 : r + 1].tolist()) for r in group.rows]
        assert len(contexts) == len(set(contexts)) == 6
        assert contexts[0] == (5, 6, 7)

    return Injected(act, after)


def same_figure_twice(folder: Path) -> Injected:
    gate = Gate(0, GateKind.OR, (1, 2), (1.0, 0.5), 0.0, excite=(1, 2))

    def act() -> Any:
        circuit, acts = shown_circuit("name")
        alone = card(gate).__html__()
        none, once, twice = (Page(document("figures", Markup(alone * n)).text) for n in range(3))
        return none.tags, once.tags, twice.tags, Page(views.page(circuit, acts).text)

    def after(result: Any) -> None:
        none, once, twice, page = result
        assert once["details"] == none["details"] + 1
        assert {tag: twice[tag] - once[tag] for tag in twice} == {tag: once[tag] - none[tag] for tag in twice}
        # what a page draws by reference is on it, once
        drawn, ids = {v[1:] for v in page.all("href") if v.startswith("#")}, Counter(page.all("id"))
        assert drawn <= set(ids)
        assert max(ids.values()) == 1

    return Injected(act, after)


ROWS = [
    Fault(
        1,
        "hostile text in a page",
        hostile_text,
        guard={"gatelens.views.document.environment": unescaped},
    ),
    Fault(2, "NaN on display", nan_on_display),
    Fault(14, "repeated contexts", repeated_contexts),
    Fault(30, "the same figure twice", same_figure_twice),
]

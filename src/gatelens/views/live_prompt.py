"""live: a prompt in a notebook with a box to type in and a slider to steer; what is stored is the static reading, complete."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from ..circuits import Circuit
from ..errors import ConfigError, GateLensError
from ..prompts.reading import PromptReading
from .document import asset
from .drawing import glyph_symbols
from .isolated import style
from .legend import listed
from .notebook import show
from .prompt import names_of, part

#: local readings that are made each time something is typed, and firings that can be steered
LOCAL, STEERED = 8, 20
_VIEW = "application/vnd.jupyter.widget-view+json"


class Live:
    """A reading that answers: return it from a cell.

    The cell's stored output is the reading as it shows itself, without a script that a converted page would have to fetch. While
    somebody is at the notebook and anywidget is installed, the same view stands there live.

    Attributes:
        reading: what is shown, of the text that was typed last.
    """

    def __init__(self, reading: PromptReading):
        self.reading = reading

    def read(self, text: str) -> PromptReading:
        """Another prompt of the same circuit and model.

        Raises:
            DataError: one that the model cannot read; the reading stays as it was.
        """
        now = self.reading
        self.reading = PromptReading.of(now.circuit, now.model, text, now.ordinary.acts, now.batches)
        return self.reading

    def answered(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What the view shows after a message of it: `{"kind": "read", "text"}` or `{"kind": "steer", "gate", "strength"}`.

        A mistake of whoever typed is answered in one sentence.
        """
        try:
            if asked.get("kind") == "read":
                self.read(str(asked.get("text", "")))
                return self.state() | {"said": "", "written": ""}
            if asked.get("kind") == "steer":
                segment, _, out = str(asked.get("gate", "")).rpartition("|")
                return {"written": repr(self.reading.steer(out, float(asked.get("strength", 1.0)), segment=segment))}
            raise ConfigError(f"expected a message of kind read or steer, got {asked.get('kind')!r}")
        except GateLensError as error:
            return {"written" if asked.get("kind") == "steer" else "said": str(error)}

    def state(self) -> dict[str, Any]:
        """Everything that the view draws."""
        reading = self.reading
        shown = part(reading, names_of(reading), "live-", LOCAL)
        firings = {(f.layer.segment.name, f.out): f for f in reading.firings(most=4 * STEERED) if f.gate is not None}
        gates = [[f"{segment}|OF_{out}", f.name] for (segment, out), f in list(firings.items())[:STEERED]]
        return {"html": str(glyph_symbols() + shown.body + listed(shown.marks)), "gates": gates, "text": shown.title}

    def _repr_html_(self) -> str:
        return show(self.reading)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        plain = {"text/plain": repr(self), "text/html": self._repr_html_()}
        if not _somebody_there() or find_spec("anywidget") is None:
            return plain
        bundle = widget(self)._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        return plain | {_VIEW: data[_VIEW]}

    def __repr__(self) -> str:
        return repr(self.reading)


def live(circuit: Circuit, model: Any, prompt: Any, acts: Any = None, batches: Any = None) -> Live:
    """A prompt's reading that answers in a notebook: type another prompt, or hold a gate while the model writes on.

    Args:
        acts: held-out activations, for names and typical levels; without them only gates with a table can be held.
        batches: ordinary data, for the loss beside steering.

    Raises:
        DataError: a prompt that the model cannot read.
    """
    return Live(PromptReading.of(circuit, model, prompt, acts, batches))


def widget(shown: Live) -> Any:
    """The anywidget of a live reading; needs the extra `notebook`."""
    made = _widget_class()(style=str(style()), **shown.state())

    def answer(_: Any, asked: Any, buffers: Any) -> None:
        for name, value in shown.answered(asked if isinstance(asked, dict) else {}).items():
            setattr(made, name, value)
        made.answers += 1  # the same answer twice changes nothing else

    made.on_msg(answer)
    return made


@cache
def _widget_class() -> Any:
    import traitlets
    from anywidget import AnyWidget

    names = ("html", "text", "said", "written", "style")
    traits: dict[str, Any] = {name: traitlets.Unicode("").tag(sync=True) for name in names}
    traits |= {"gates": traitlets.List([]).tag(sync=True), "answers": traitlets.Int(0).tag(sync=True)}
    return type("LivePrompt", (AnyWidget,), {"_esm": asset("live.js"), **traits})


def _somebody_there() -> bool:
    """Whether a person sits at the notebook: one that runs by itself, as nbconvert lets it, can ask nobody anything."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return bool(getattr(getattr(shell, "kernel", None), "_allow_stdin", False))

"""The last two rooms: the report of a walk's circuit, and its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import store
from ..distributed import team
from ..errors import ConfigError
from ..errors.tracker import tell
from ..evaluation.report import Report
from .reporting import own_report, pictures_of, whole_report
from .state import State
from .view_settings import keep_settings

#: quick reports have a file of their own: the whole one is still to come
REPORT, QUICK = "report.json", "report-quick.json"


def report(state: State, quick: bool = False) -> Report:
    """The report, from the run folder where it is finished there.

    Args:
        quick: the circuit's own figures alone: no baselines, coverage, curves.
    """
    if quick not in state.reports:
        state.reports[quick] = _report(state, quick)
        tell(state.reports[quick].numbers())
    return state.reports[quick]


def _report(state: State, quick: bool) -> Report:
    _ = state.circuit
    if state.parts is None:
        return _measured(state, quick)

    def make(path: Path) -> Report:
        found = _measured(state, quick)
        if team().first:
            store.replace_file(path, store.dump_json(found.to_dict()))
        return found

    made_from = state.made_from("circuit", "activations/fit", "activations/held_out")
    return state.parts.finished(QUICK if quick else REPORT, _read, make, made_from)


def _measured(state: State, quick: bool) -> Report:
    own = None if quick else report(state, quick=True)
    with state.room("evaluate"):
        found = own_report(state) if own is None else whole_report(state, own)
    return replace(found, timing_s={k: round(v, 3) for k, v in state.timing_s.items()})


def _read(path: Path) -> Report:
    with store.understood(path):
        return Report.from_dict(store.parse_json(store.read_file(path, store.MAX_BYTES), path))


def draw(state: State, found: Report | None, **options: Any) -> Any:
    """The page of the walk's circuit; `options`: of `views.page`."""
    from .. import views

    settings = state.source.views
    with state.room("view"):
        return views.page(
            state.circuit,
            state.acts[1],
            found,
            batches=state.batches[1],
            model=state.model,
            **{
                "title": settings.title or state.name,
                "rotations": pictures_of(state),
                **_cards(state),
                **options,
            },
        )


def _cards(state: State) -> dict[str, Any]:
    """What the run's settings say of the cards."""
    settings = state.source.views
    return {"max_cards": settings.max_cards, "token_panels": settings.token_panels, "prompts": settings.prompts}


def _written(state: State, found: Report | None, pending: bool = False) -> Path:
    """index.html in the run folder, whose cards are drawn once in a walk."""
    from ..views import saved_in
    from ..views.circuit_page import Drawn

    path = _place(state)
    with state.room("view"):
        if state.drawn is None:
            state.drawn = Drawn(state.circuit, state.acts[1], state.batches[1], state.model, **_cards(state))
        title = state.source.views.title or state.name
        state.drawn.page(found, title, pictures_of(state), saved_in(path), pending).save(path)
    return path


def page_ahead(state: State) -> Path:
    """index.html with the gates alone, which says that the rest is still being measured; a room later it is written again."""
    return _written(state, None, pending=True)


def page(state: State, quick: bool = False) -> Path:
    """index.html in the run folder."""
    path = _written(state, report(state, quick))
    if state.out is not None:
        keep_settings(state.out, state.source.views)
    state.manifest.record("index.html", state.made_from(QUICK if quick else REPORT, "circuit"))
    return path


def _place(state: State) -> Path:
    if state.parts is None:
        raise ConfigError(
            "a walk in memory has no folder for its page: found.page().save(...) puts it where you want it"
        )
    return state.parts.place("index.html")

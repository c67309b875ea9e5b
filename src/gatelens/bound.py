"""Methods of values that need rooms behind their own: the one place where the corridor is walked backwards.

A `Circuit` draws itself, writes itself as JSON, reads a prompt; each of these rooms is imported when it is first asked for.
"""

from __future__ import annotations

from typing import Any

from .lazy import LATER


def _show(value: Any) -> str:
    from .views import show

    return show(value)


def _circuit_json(circuit: Any) -> dict[str, Any]:
    from .views import circuit_json

    return circuit_json(circuit)


def _read_prompt(circuit: Any, model: Any, prompt: Any, acts: Any, batches: Any) -> Any:
    from .prompts import read_prompt

    return read_prompt(circuit, model, prompt, acts, batches)


def _push_to_hub(circuit: Any, repo: str, report: Any, private: bool) -> str:
    from .pipeline.sharing import push

    return push(circuit, repo, report, private)


def _from_pretrained(circuits: Any, name: Any, segments: Any, revision: str | None) -> Any:
    from .pipeline.sharing import fetched

    with fetched(name, revision) as folder:
        return circuits.load(folder, segments)


LATER.update(
    show=_show,
    circuit_json=_circuit_json,
    read_prompt=_read_prompt,
    push_to_hub=_push_to_hub,
    from_pretrained=_from_pretrained,
)

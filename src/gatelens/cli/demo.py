"""The demo: gates whose truth is known first, then a real language model's; at most a dozen lines that a newcomer understands."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .walks import act as walk
from .walks import add_changes, add_walk

#: gates that are named at the end; texts and letters of an input's name
NAMED, TEXTS, LETTERS = 5, 2, 18
LARGE, SMALL = "demo_smollm2", "demo"


def add_verb(verbs: Any) -> None:
    """`demo`, which takes what `run` takes but for its config."""
    demo = verbs.add_parser(
        "demo",
        help="read a language model offline, and say where the page is",
        description="SmolLM2 where it is installed, else a small GPT-2 inside this package: an MLP as gates, without any download.",
    )
    add_changes(demo)
    add_walk(demo)
    demo.set_defaults(config=SMALL, act=act)


def config_name() -> str:
    """SmolLM2's config where it can run, else that of the small model inside this package."""
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    from ..models.gguf_cache import PACKAGE
    from ..store.packages import package_folder

    try:
        version(PACKAGE)
    except PackageNotFoundError:
        return SMALL
    return LARGE if find_spec("gguf") and package_folder("smollm2") else SMALL


def act(options: argparse.Namespace) -> int:
    """Walk the demo's config; say what was found, beside its nulls."""
    options.config = config_name()
    if options.config == SMALL:
        sys.stderr.write("SmolLM2 is not installed (`make demo` installs it): this reads a small GPT-2 of our own\n")
    return walk(options, shown)


def shown(state: Any) -> str:
    """What a finished demo says."""
    return "\n".join([planted(), *_found(state), "", f"The page: {state.out / 'index.html'}"])


def planted() -> str:
    """Eight gates that were built into a small network, read and tried like any others."""
    from .. import GramLasso, build_circuit
    from ..gates import Grade
    from ..planted import plant_network, score_gates

    net = plant_network(width_in=32, d_in=24, width_out=8, d_out=8, steps=300, seed=0)
    fit, held_out = net.activations(12_000), net.activations(6_000, seed=1)
    solver = GramLasso(mean_wires=4.0)
    circuit = build_circuit(net.model, [net.segment], net.dictionaries, fit, solver, held_out=held_out, progress=False)
    gates = circuit.gates[net.segment.name]
    right, verified = score_gates(net.gates, gates).right, sum(g.grade == Grade.VERIFIED for g in gates)
    return (
        f"A check first: of {len(gates)} gates built into a small network, {right} were read as they were built, "
        f"and {verified} verified."
    )


def _found(state: Any) -> Iterator[str]:
    from ..evaluation.rule_counts import gate_summary, rules_sentence
    from ..views import known
    from ..views.cards import order_key

    circuit, held_out = state.circuit, state.acts[1]
    segment = circuit.segments[0]
    gates = [g for g in circuit.gates[segment.name] if g.looked_for]
    yield f"{state.source.model_name}, {segment.hook_in} -> {segment.hook_out}: {len(gates):,} output features read."
    yield from filter(None, [rules_sentence({segment.name: gate_summary(gates)})])
    names = known(circuit, held_out, model=state.model, batches=state.batches[1])
    marks = names.marks or (lambda out: False)
    read = sorted((g for g in gates if g.read and len(g.rule.literals) > 1), key=lambda g: order_key(g, marks(g.out)))
    if read:
        yield f"The first {min(NAMED, len(read))} of two inputs or more by evidence (MCC: 1 is without errors, 0 is chance):"
    for gate in read[:NAMED]:
        yield f"  {line(gate, names)}"


def line(gate: Any, names: Any) -> str:
    """`verified  though or yet or thus -> " the"   MCC 0.97 (random parents 0.00)`; features of one name show their numbers."""
    from ..views.labels import Label
    from ..views.sketch import sketch_of

    called = {i: _short(Label.of(names.label("in", i))) for i in gate.rule.features}
    often = Counter(called.values())

    def literal(of: Any) -> str:
        name = called[of.feature]
        return f"IF_{of.feature}" if not name else name if often[name] == 1 else f"{name} [{of.feature}]"

    tokens = sketch_of(gate, names).effect.tokens[:3]
    favours = f" -> {', '.join(tokens)}" if tokens else ""
    null = "-" if gate.control_mcc is None else f"{gate.control_mcc:.2f}"
    return f"{gate.grade}  {gate.rule.words(literal)}{favours}   MCC {gate.mcc:.2f} (random parents {null})"


def _short(label: Any) -> str:
    """The first texts on which a feature fires, as one word."""
    texts = [text.strip("· ") for text in label.shown]
    text = "/".join(dict.fromkeys(text for text in texts[:TEXTS] if text))
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"

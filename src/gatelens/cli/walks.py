"""The verbs that walk through the rooms of a config, up to the one that they are named after."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors.interrupt import at_once, keeping

#: verb -> (room at which it stops, what its help says)
VERBS = {
    "run": ("view", "all rooms: model, activations, bases, connectors, gates, evaluation, page"),
    "collect": ("collect", "run the model and keep the activations at the hook points"),
    "bases": ("bases", "fit or load the bases at the hook points"),
    "connect": ("connect", "find the wires between the bases"),
    "gates": ("gates", "read the wires as gates"),
    "evaluate": ("evaluate", "measure the circuit in the model, on held-out data, beside its baselines"),
    "view": ("view", "write the page, index.html; of a finished run (its folder as CONFIG) with other view settings"),
}


def add_verbs(verbs: Any) -> None:
    """One parser a verb of `VERBS`."""
    for verb, (_, help_text) in VERBS.items():
        parser = verbs.add_parser(
            verb,
            help=help_text,
            description=f"{help_text[0].upper()}{help_text[1:]}. Rooms that are finished in the run folder are used.",
        )
        add_config(parser)
        add_walk(parser)


def add_walk(parser: argparse.ArgumentParser) -> None:
    """What all verbs of the walk take."""
    parser.add_argument("--out", metavar="DIR", help="the run folder (default: runs/NAME)")
    parser.add_argument("--restart", action="store_true", help="forget what is finished in the run folder")
    parser.add_argument(
        "--json", action="store_true", help="print the report as JSON, and nothing else, on standard output"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the circuit's own figures and their page; no baselines, coverage, curves",
    )
    parser.add_argument(
        "--track",
        choices=("wandb", "trackio"),
        help="tell training curves and the report to a tracker (default: nobody)",
    )
    add_estimate(parser)
    parser.set_defaults(act=act)


def add_config(parser: argparse.ArgumentParser) -> None:
    """CONFIG, and what changes or restricts it."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file, or a name: demo, digits, mnist, gates, gpt2 ...")
    add_changes(parser)


def add_changes(parser: argparse.ArgumentParser) -> None:
    """What changes or restricts a config."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="change a setting, e.g. solver.mean_wires=8",
    )
    add_safe(parser)


def add_safe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--safe",
        action="store_true",
        help="a config is code, it imports and calls what it names: refuse one that names anything but gatelens' own",
    )


def config_of(options: argparse.Namespace) -> Any:
    """The config that a verb was given; for an estimate, without what is somebody else's."""
    from ..pipeline import read_config

    config = _redrawn(options) or read_config(options.config, options.changes, options.safe)
    if options.estimate:
        from ..pipeline.foreign import unrun

        config, notes = unrun(config)
        for note in notes:
            _say(note)
    return config


def _redrawn(options: argparse.Namespace) -> Any:
    """The config of a run folder that `view` was given, which is then where its page goes; None for a config file."""
    from pathlib import Path

    if options.verb != "view" or not Path(options.config).is_dir():
        return None
    from ..pipeline.view_settings import redrawn_config

    options.out = options.out or options.config
    return redrawn_config(Path(options.config), options.changes, options.safe)


def add_estimate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--estimate", action="store_true", help="say what it would take in memory and on disk, and stop"
    )


def stated(estimate: Any, options: argparse.Namespace) -> bool:
    """Say what a study will take before it begins: on standard output where that is all that was asked for (True)."""
    if options.estimate:
        sys.stdout.write(f"{estimate}\n")
        return True
    _say(str(estimate.check()))
    return False


def walk_of(config: Any, out: str | None) -> Any:
    """The walk of a config in its run folder; nothing is done yet."""
    from ..pipeline.running import state_of

    return state_of(config, out, sys.stderr.isatty())


def act(options: argparse.Namespace, shown: Callable[[Any], str] | None = None) -> int:
    """Walk up to the verb's room and show what is there; `shown`: what to say in place of the report."""
    with at_once(f"gatelens {options.verb}"):
        from ..pipeline import preflight

    config = config_of(options)
    preflight(config)
    with at_once(f"gatelens {options.verb}"):
        from ..pipeline import run
        from ..pipeline.finishing import report
        from ..pipeline.provenance import kept_in

    room = VERBS["run" if options.verb == "demo" else options.verb][0]
    if options.estimate:
        return _estimate(config, options.out, room)
    with tracked(options.track, config.name):
        walk = run(config, options.out, room, sys.stderr.isatty(), options.restart, _say, options.quick)
    if not walk.worker.first:  # one of several processes speaks
        return 0
    with keeping(lambda: kept_in(walk.out)):
        if options.json and room in ("evaluate", "view"):
            text = json.dumps(report(walk, options.quick).to_dict(), indent=1)
        else:
            text = shown(walk) if shown else _shown(walk, room, options.quick)
    sys.stdout.write(f"{text}\n")
    return 0


@contextmanager
def tracked(name: str | None, run: str) -> Iterator[None]:
    """A run of the named tracker for as long as the block lasts."""
    if name is None:
        yield
        return
    from importlib import import_module

    from ..errors import ConfigError
    from ..errors.tracker import tracking

    try:
        tracker: Any = import_module(name)
    except ImportError as error:
        raise ConfigError(f"--track {name}: the package {name} is not installed. pip install {name}") from error
    tracker.init(project="gatelens", name=run)
    try:
        with tracking(tracker):
            yield
    finally:
        tracker.finish()


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


def _estimate(config: Any, out: str | None, room: str) -> int:
    from ..pipeline.estimating import estimates
    from ..pipeline.running import ROOMS

    for estimate in estimates(walk_of(config, out), room, ROOMS):
        sys.stdout.write(f"{estimate}\n")
    return 0


def _shown(walk: Any, room: str, quick: bool) -> str:
    from ..pipeline.finishing import report

    if room == "collect":
        return "\n".join(map(repr, walk.acts))
    if room == "bases":
        return "\n".join(f"{hook}: {basis_line(basis)}" for hook, basis in walk.bases.items())
    if room == "connect":
        return repr(walk.connected)
    if room == "gates":
        return "\n".join([repr(walk.circuit), "", *best_gates(walk.circuit)])
    text = "\n".join([repr(report(walk, quick)), "", *best_gates(walk.circuit)])
    return text if room == "evaluate" else f"{text}\n\n{walk.out / 'index.html'}"


def basis_line(basis: Any) -> str:
    from ..basis.linear import basis_kind

    config = getattr(basis, "cfg", None)
    return f"{basis_kind(basis)}, {config.d_in} -> {config.d_sae}" if hasattr(config, "d_sae") else repr(basis)


def best_gates(circuit: Any) -> list[str]:
    """The gates with the best held-out evidence, a line each."""
    read = [g for gates in circuit.gates.values() for g in gates if g.read]
    read.sort(key=lambda g: (not g.verified, -(g.mcc or 0.0), -g.firings))
    return [repr(gate) for gate in read[:5]]

"""Switching: the model is run with features changed, beside what was foreseen put in, and unrelated changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.features import dense_rows, encode_rows
from ..basis.linear import directions
from ..basis.output import output_features
from ..errors import ConfigError, DataError
from .foreseeing import CONTROLS, feature_change, foreseen, unrelated
from .running import Change
from .scene import Layer, Scene
from .switched import Foreseen, Moved, Step, Switched, logit

#: a change below this share of the largest feature is a rounding error of the run
_ROUNDING = 1e-4


def switched(
    reading: Scene,
    changes: Mapping[int | str, float | str],
    at: int | Sequence[int],
    segment: str | None,
    frozen: bool,
    target: str | int | None,
    companions: bool,
) -> Switched:
    """See `PromptReading.set`."""
    layer = reading.layer(segment)
    places = sorted({reading.prompt.position(p) for p in ([at] if isinstance(at, int) else at)})
    if not places or not changes:
        raise ConfigError("nothing to switch: give at least one feature and one position")
    steps = [s for p in places for s in _steps(reading, layer, changes, p)]
    if companions:
        steps += [s for step in steps for s in _beside(reading, layer, step, {(x.feature, x.position) for x in steps})]
    place, positions = places[-1], torch.tensor(places)
    followed = reading.target(target, place)
    inner, outer = (_vectors(reading, layer, steps, kind, positions) for kind in ("IF", "OF"))
    inside = any(s.kind == "IF" for s in steps)
    said = foreseen(reading, layer, steps, positions, inner) if inside else {"gates": torch.zeros_like(outer)}
    said = {who: change + outer for who, change in said.items()}
    runs = _runs(reading, layer, positions, inner, outer, list(said.values()))
    ran = reading.runner.run(runs, 1 + len(said) + CONTROLS, list(reading.clean_runs), frozen)
    moves = [logit(logits, place, followed) - logit(reading.logits, place, followed) for logits in ran.logits]
    true = ran.values[layer.segment.hook_out][0][positions] - layer.y[positions]
    judged = [
        Foreseen(
            who,
            _r2(true, change) if inside else None,
            None if layer.path is None else layer.path.change(place, change[-1], followed),
            moves[run],
        )
        for run, (who, change) in enumerate(said.items(), 1)
    ]
    moved = _moved(reading, layer, steps, {hook: value[0] for hook, value in ran.values.items()})
    controls = tuple(moves[1 + len(said) :])
    return Switched(
        reading, tuple(steps), place, followed, reading.logits, ran.logits[0], tuple(judged), controls, moved, frozen
    )


def _runs(
    reading: Scene, layer: Layer, positions: Tensor, inner: Tensor, outer: Tensor, said: Sequence[Tensor]
) -> list[Change]:
    """The switch itself; each foreseen change of the output in the output's place; the controls."""
    hook_in, hook_out = layer.segment.hook_in, layer.segment.hook_out
    runs = [Change(run, hook_in, positions, inner) for run in range(1 + len(said))]
    runs.append(Change(0, hook_out, positions, outer))
    clean = layer.y[positions]
    runs += [Change(run, hook_out, positions, clean + change, replace=True) for run, change in enumerate(said, 1)]
    for hook, f, vectors in ((hook_in, layer.f_in, inner), (hook_out, layer.f_out, outer)):
        if vectors.any():
            for run, steps in enumerate(unrelated(reading, hook, f, positions, vectors), 1 + len(said)):
                runs.append(Change(run, hook, positions, steps))
    return runs


def _steps(reading: Scene, layer: Layer, changes: Mapping[int | str, float | str], position: int) -> list[Step]:
    found = []
    for named, wanted in changes.items():
        kind = "OF" if isinstance(named, str) and named.upper().startswith("OF") else "IF"
        f = layer.f_out if kind == "OF" else layer.f_in
        feature = reading.feature(named, f.shape[1], kind)
        value = _value(reading, layer, kind, feature, wanted)
        found.append(Step(f"{kind}_{feature}", kind, feature, position, float(f[position, feature]), value))
    return found


def _beside(reading: Scene, layer: Layer, step: Step, taken: set[tuple[int, int]]) -> list[Step]:
    """The companions of an input feature: off with it, or raised to their means with it."""
    if step.kind != "IF":
        return []
    group = reading.ordinary.group(layer.segment.hook_in, step.feature)
    found = []
    for feature, mean in list(zip(group.members.tolist(), group.means.tolist(), strict=True))[1:]:
        before = float(layer.f_in[step.position, feature])
        after = max(before, mean) if step.after > 0 else min(before, 0.0)
        if after != before and (feature, step.position) not in taken:
            taken.add((feature, step.position))
            found.append(Step(f"IF_{feature}", "IF", feature, step.position, before, after))
    return found


def _value(reading: Scene, layer: Layer, kind: str, feature: int, wanted: float | str) -> float:
    if wanted == "off":
        return 0.0
    if wanted == "typical":
        return reading.typical(layer, kind, feature)
    if isinstance(wanted, (int, float)) and not isinstance(wanted, bool) and abs(wanted) < float("inf"):
        return float(wanted)
    raise DataError(f'{kind}_{feature} is set to a finite number, "off" or "typical"; got {wanted!r}')


def _vectors(reading: Scene, layer: Layer, steps: Sequence[Step], kind: str, positions: Tensor) -> Float[Tensor, "k d"]:
    hook, f = (layer.segment.hook_in, layer.f_in) if kind == "IF" else (layer.segment.hook_out, layer.f_out)
    table = directions(reading.circuit.bases[hook], f.shape[1]).float().cpu()
    return feature_change(steps, kind, positions, f.shape[1]) @ table


def _r2(true: Tensor, said: Tensor) -> float | None:
    size = float(true.double().square().sum())
    return 1 - float((true - said).double().square().sum()) / size if size > 0 else None


def _moved(reading: Scene, edited: Layer, steps: Sequence[Step], values: Mapping[str, Tensor]) -> tuple[Moved, ...]:
    """Output features of all segments that changed, the largest change first; the edited ones left out."""
    mine = {(s.position, s.feature) for s in steps if s.kind == "OF"}
    found: list[tuple[float, Moved]] = []
    for name, layer in reading.layers.items():
        hook_out = layer.segment.hook_out
        x, y = values[layer.segment.hook_in], values[hook_out]
        f_out = dense_rows(output_features(reading.circuit.bases[hook_out], x, y))
        change = (f_out - layer.f_out).abs()
        real = change > _ROUNDING * layer.f_out.abs().max().clamp_min(1e-6)
        said = _said_after(reading, layer, steps if layer is edited else (), x)
        for p, out in real.nonzero().tolist():
            if layer is not edited or (p, out) not in mine:
                was, is_now = float(layer.f_out[p, out]), float(f_out[p, out])
                predicted = None if said is None else float(said[p, out])
                title = reading.ordinary.name("OF", hook_out, out)
                found.append((float(change[p, out]), Moved(name, p, out, title, was, is_now, predicted)))
    return tuple(m for _, m in sorted(found, key=lambda pair: -pair[0]))


def _said_after(reading: Scene, layer: Layer, steps: Sequence[Step], x: Tensor) -> Tensor | None:
    """What the connector makes of the input after a switch: of the very codes that were set, elsewhere of those encoded anew."""
    connector = reading.circuit.connectors.get(layer.segment.name)
    if connector is None:
        return None
    f_in = dense_rows(encode_rows(reading.circuit.bases[layer.segment.hook_in], x))
    inside = [s for s in steps if s.kind == "IF"]
    for s in inside:
        f_in[s.position] = layer.f_in[s.position]
    for s in inside:
        f_in[s.position, s.feature] = s.after
    return connector(f_in)

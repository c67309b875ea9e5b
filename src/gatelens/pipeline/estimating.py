"""What the rooms of a run will take, from the config, the data and the model's shapes; no forward pass is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..activations import hook_names
from ..bases.sae import TrainedSAE
from ..estimate import Estimate, collecting, features, gram_fit, greedy_fit, training
from ..features import SPARSE_WIDTH
from ..solvers.relu_omp import ReluOMP
from .building import build

if TYPE_CHECKING:
    from .walk import Walk

#: positions in a shard of a run's activations
SHARD_ROWS = 32_768


def estimates(walk: Walk, until: str, rooms: tuple[str, ...]) -> list[Estimate]:
    """One estimate a room up to `until`, of memory on top of model and data, and of disk."""
    model = _model(walk)
    section = {"use": "mlp_segments"} | walk.config.segments
    segments = list(build(section, "segments", given={"model": model}))
    widths = {hook: d for s in segments for hook, d in ((s.hook_in, s.d_in), (s.hook_out, s.d_out))}
    fit, held_out = (part.rows for part in walk.batches)
    made = {
        "collect": _collect(walk, model, widths, fit, held_out),
        "bases": _bases(walk, widths, fit),
        "connect": _connect(walk, segments, widths, fit),
        "gates": _gates(walk, segments, widths, fit + held_out),
    }
    return [made[room] for room in rooms[: rooms.index(until) + 1] if room in made]


def _model(walk: Walk) -> Any:
    """The model's shapes; a network that the run would train is built without training."""
    if walk.config.model.get("use") != "HookedMLP":
        return walk.model
    section = {k: v for k, v in walk.config.model.items() if k not in ("train", "weights")}
    return build(section, "model", seed=walk.config.seed)


def _collect(walk: Walk, model: Any, widths: dict[str, int], fit: int, held_out: int) -> Estimate:
    batch = walk.batches[0].keep[: walk.batches[0].batch_size].numel()
    config = getattr(model, "cfg", None)
    inner = sum(getattr(model, "sizes", ())) or 8 * getattr(config, "d_model", 0) + 3 * (
        getattr(config, "d_mlp", 0) or 0
    )
    parts = [
        collecting(rows, widths.values(), shard_rows=SHARD_ROWS, pass_bytes=4 * batch * inner)
        for rows in (fit, held_out)
    ]
    larger = max(parts, key=lambda e: e.memory)
    return Estimate("collect", larger.memory, sum(e.disk for e in parts), larger.parts)


def _feature_widths(walk: Walk, widths: dict[str, int]) -> dict[str, tuple[int, float]]:
    """hook -> (features, how many are active in a row); what is not known from the config counts as dense."""
    found = {}
    for hook, d in widths.items():
        recipe = walk.recipes.get(hook, walk.recipes.get(""))
        if isinstance(recipe, TrainedSAE):
            f = recipe.d_sae or recipe.expansion * d
            found[hook] = f, float(recipe.k if "topk" in recipe.architecture else f)
        else:
            f = getattr(recipe, "d_sae", None) or getattr(recipe, "components", None) or d
            found[hook] = f, float(f)
    return found


def _bases(walk: Walk, widths: dict[str, int], rows: int) -> Estimate:
    batch = getattr(walk.recipes.get(""), "batch_size", 512)
    parts = [
        training(rows, d, f, batch)
        for d, (f, _) in zip(widths.values(), _feature_widths(walk, widths).values(), strict=True)
    ]
    largest = max(parts, key=lambda e: e.memory)
    return Estimate("bases", largest.memory, sum(e.disk for e in parts), largest.parts)


def _held(rows: int, width: int, active: float) -> int:
    """Features as `encode_rows` holds them."""
    return features(rows, width, active if width > SPARSE_WIDTH else None)


def _connect(walk: Walk, segments: list[Any], widths: dict[str, int], rows: int) -> Estimate:
    wide = _feature_widths(walk, widths)
    held = sum(_held(rows, *wide[hook]) for hook in hook_names(segments))
    fits = []
    for s in segments:
        (m, active_in), (n, active_out) = wide[s.hook_in], wide[s.hook_out]
        if isinstance(walk.solver, ReluOMP):
            fits.append(greedy_fit(rows, m, n, active_in, active_out).memory)
        else:
            fits.append(gram_fit(rows, m, n).parts["Gram matrices"])
    return Estimate("connect", held + max(fits), 0, {"the features": held, "the fit": max(fits)})


def _gates(walk: Walk, segments: list[Any], widths: dict[str, int], rows: int) -> Estimate:
    wide = _feature_widths(walk, widths)
    held = sum(_held(rows, *wide[hook]) for hook in hook_names(segments))
    by_column = max(12 * rows * int(wide[s.hook_in][1] + wide[s.hook_out][1]) for s in segments)
    return Estimate("gates", held + by_column, 0, {"the features": held, "the features by column": by_column})

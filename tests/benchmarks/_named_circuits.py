"""Gates of features in superposition: two with names, read from a network through trained SAEs and through true directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gatelens.activations import Activations
from gatelens.bases import TrainedSAE
from gatelens.basis.features import encode_rows
from gatelens.bench import Figure
from gatelens.gates import type_gates
from gatelens.planted import word_network
from gatelens.planted.network import HOOK_IN, HOOK_OUT, PlantedNetwork
from gatelens.solvers import ReluOMP

#: latents of a trained SAE beyond the planted features: with a handful, some features never get one
SPARE = 64
#: training of the SAEs: directions kept apart, against a latent that takes up the feature inside which it fires
APART: dict[str, Any] = {"trainer": "sparse", "orthogonality": 0.25}
PLAIN: dict[str, Any] = {"trainer": "sae-lens"}
#: least share of an output's power that a wire between learned features explains: they leave 2 to 3 % of it unexplained
#: themselves, and features in superposition leak into one another by as much
LEAST = 0.03


def circuits(seeds: Sequence[int]) -> Iterator[Figure]:
    """former | old | young and said - said_after_quote, through trained SAEs and through the true directions.

    Other outputs that read a named gate's inputs fire where it fires, and a sparse dictionary does well to merge them: the
    bar is for a network in which the named words are read by the named outputs alone; the other one stands beside it.
    """
    found = [_named_circuits(s, apart=True, plain=True) for s in seeds]
    shared = [_named_circuits(s, apart=False) for s in seeds]
    for place, name in enumerate(("former | old | young", "said - said_after_quote")):
        sae, plain, true, null = (
            [run[basis][place] for run in found] for basis in ("sae", "plain", "true", "shuffled")
        )
        mixed, mixed_true = ([run[basis][place] for run in shared] for basis in ("sae", "true"))
        weights = ", ".join(str(c["weights"]) for c in sae)
        kinds = (", ".join(c["kind"] for c in runs) for runs in (sae, plain, true, mixed))
        notes = {"wires": f"weights by seed: {weights}",
                 "gate": "read as {}; plain SAEs: {}; true directions: {}; with other outputs on its inputs: {}".format(*kinds)}  # fmt: skip
        for key, words, bar in (
            ("wires", "exactly its parents and signs", 1.0),
            ("gate", "its parents, signs and gate", 1.0),
            ("rule", "its gate, wires beside the printed rule's allowed", None),
        ):
            yield Figure(
                f"{name}: share of seeds with {words}, trained SAEs", share(sae, key), bar,
                baselines={
                    "plain BatchTopK SAEs": share(plain, key),
                    "true directions": share(true, key),
                    "rows shuffled": share(null, key),
                    "other outputs on its inputs too": share(mixed, key),
                    "the same, true directions": share(mixed_true, key),
                },
                note=notes.get(key, ""),
            )  # fmt: skip


def _named_circuits(seed: int, apart: bool, plain: bool = False) -> dict[str, list[dict]]:
    """For SAEs (plain ones too, where asked for), true directions and a null: what was found for the two named outputs."""
    net = word_network(seed=seed, apart=apart)
    acts = net.activations(40_000, seed=1)
    saes = trained(net, acts, seed, APART)
    identity = {h: {i: i for i in range(len(d.W_dec))} for h, d in net.dictionaries.items()}
    order = torch.randperm(40_000, generator=torch.Generator().manual_seed(seed))
    kinds = {
        "sae": (*saes, None),
        "true": (net.dictionaries, identity, None),
        "shuffled": (*saes, order),
        **({"plain": (*trained(net, acts, seed, PLAIN), None)} if plain else {}),
    }
    return {name: _read_named(net, acts, *setting) for name, setting in kinds.items()}


def trained(net: PlantedNetwork, acts: Activations, seed: int, how: dict[str, Any]) -> tuple[dict, dict]:
    """SAEs at both hook points, and which planted feature each latent stands for."""
    saes, names = {}, {}
    for hook, f in zip((HOOK_IN, HOOK_OUT), net.features.sample(40_000, seed=1), strict=True):
        active = 1.05 * f.values().numel() / len(f)  # much under the true L0 features merge, much over it they mix
        recipe = TrainedSAE(d_sae=f.shape[1] + SPARE, k=active, samples=1_200_000, seed=seed, **how)
        saes[hook] = recipe.train(acts[hook], hook)
        names[hook] = match(saes[hook].W_dec, net.dictionaries[hook].W_dec)
    return saes, names


def match(found: Tensor, true: Tensor) -> dict[int, int]:
    """Latent -> the planted feature whose direction it has (cosine over .8)."""
    cosine = torch.nn.functional.normalize(found, dim=1) @ true.T
    best, feature = cosine.max(1)
    return {i: int(f) for i, (c, f) in enumerate(zip(best.tolist(), feature.tolist(), strict=True)) if c > 0.8}


def _read_named(net, acts, bases, names, order) -> list[dict]:
    f_in, f_out = (encode_rows(bases[hook], acts[hook]) for hook in (HOOK_IN, HOOK_OUT))
    if order is not None:
        f_in = f_in[order]
    connector = ReluOMP(tau=LEAST).fit(f_in, f_out)
    gates = type_gates(connector, f_in, f_out)
    results = []
    for true in net.gates[:2]:
        nothing = {"wires": False, "gate": False, "rule": False, "kind": "no latent", "weights": []}
        found = [_compare(true, gates[i], names[HOOK_IN]) for i, f in names[HOOK_OUT].items() if f == true.out]
        results.append(max(found, key=lambda r: (r["gate"], r["wires"], r["rule"], len(r["weights"])), default=nothing))
    return results


def _compare(true, gate, names: dict[int, int]) -> dict:
    def named(literals: Iterable[tuple[int, bool]]) -> dict[int, bool]:
        return {names.get(i, -1 - i): excites for i, excites in literals}

    planted = {i: w > 0 for i, w in zip(true.inputs, true.weights, strict=True)}
    right = gate.kind in true.accepted
    wires = named((i, w > 0) for i, w in zip(gate.inputs, gate.weights, strict=True)) == planted
    rule = named([*((i, True) for i in gate.excite), *((i, False) for i in gate.inhibit)]) == planted
    weights = [round(w, 2) for w in gate.weights]
    return {
        "wires": wires, "gate": wires and right, "rule": rule and right, "kind": str(gate.kind), "weights": weights
    }  # fmt: skip


def share(runs: list[dict], key: str) -> float:
    return sum(run[key] for run in runs) / len(runs)

"""The questions that readers of rotations ask, put to one trained network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from _rotation_more import composition_match, ends_are_neurons, uniqueness

import gatelens as gl
from gatelens.bases.rotation import inputs_needed
from gatelens.basis.linear import Rotation
from gatelens.bench import Figure
from gatelens.errors import GateLensWarning
from gatelens.jacobians import sparsity
from gatelens.segments import MLPWeights, Segment, mlp_segments


def figures(net: Any) -> Iterator[Figure]:
    (segment,) = mlp_segments(net.model)
    hook = segment.hook_in
    fit, held = net.acts[hook], net.held[hook][:200]
    answer = inputs_needed(segment, fit, held)
    curve = {c: answer.figures[f"held out, {c} inputs"] for c in (1, 4, 16, 64, 256)}
    beside = {f"{c} inputs": v for c, v in curve.items()} | answer.baselines
    yield Figure(
        "held-out L1 of 64 inputs over that of 256, %",
        100 * (curve[64] / curve[256] - 1),
        2.0,
        "lower",
        beside,
        answer.verdict,
    )
    yield Figure(
        "held-out L1 of 16 inputs over that of 256, %", 100 * (curve[16] / curve[256] - 1), 6.0, "lower", {}, ""
    )
    alone = uniqueness(net.columns, 3)
    yield Figure(
        "match between fits from random starts",
        alone.figures["match over starts"],
        baselines=alone.baselines | alone.figures,
        note=alone.verdict,
    )
    layers = _layers(net.model)
    acts = net.acts
    chain = composition_match(layers[0], layers[1], acts)
    yield Figure(
        "output basis of layer 1 against input basis of layer 2: match",
        chain.figures["match"],
        baselines=chain.baselines,
        note=chain.verdict,
    )
    ends = ends_are_neurons(layers, acts)
    yield Figure(
        "is the first layer's rotation the identity: match",
        ends.figures["hook_post.0: match with the neurons"],
        baselines=ends.baselines | ends.figures,
        note=ends.verdict,
    )
    yield _two_sided(segment, net)


def _layers(model: Any) -> list[Segment]:
    """Every map of the network, from the pixels to the logits."""
    hooks = ["hook_in", *(f"hook_post.{i}" for i in range(model.n_hidden)), "hook_logits"]
    segments = []
    for i, layer in enumerate(model.layers):
        act = "relu" if i < model.n_hidden else "identity"
        weights = MLPWeights(layer.weight.detach().T, layer.bias.detach(), act=act)
        segments.append(Segment(hooks[i], hooks[i + 1], weights, layer.in_features, layer.out_features, weights))
    return segments


def _two_sided(segment: Segment, net: Any) -> Figure:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", GateLensWarning
        )  # the input side of a gated linear map, which is the point here
        bases = gl.JacobianRotation("both", iterations=60).fit([segment], net.acts)
    x = net.held[segment.hook_in][:200]
    jacobian = gl.feature_jacobian(segment, x)
    u, _, vt = torch.linalg.svd(segment.mlp.W_in.T)  # pyright: ignore[reportOptionalMemberAccess]
    svd = (Rotation(vt), Rotation(u.T))
    return Figure(
        "two-sided rotation, held-out L1",
        sparsity(gl.feature_jacobian(segment, x, bases[segment.hook_in], bases[segment.hook_out])).l1,
        baselines={
            "neurons": sparsity(jacobian).l1,
            "both singular bases of the weights": sparsity(gl.feature_jacobian(segment, x, *svd)).l1,
            "one-sided chain": sparsity(net.fits["chain"].matrix @ jacobian).l1,
        },
        note="the two-sided optimum is close to the singular bases of the weights seen through the gates, and differs by start",
    )

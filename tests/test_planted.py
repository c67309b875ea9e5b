"""Planted feature data: gates obey their definitions, noise has the stated rates, streams equal samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gatelens.errors import ConfigError
from gatelens.planted import IN_CLASS, OUT_OF_CLASS, Noise, PlantedFeatures

QUIET = Noise(0.0, 0.0, 0.0, 0.0)


def _dense(planted, rows=4000, seed=0):
    f_in, f_out = planted.sample(rows, seed)
    return f_in.to_dense(), f_out.to_dense()


def _open(gate, on):
    """The gate by its definition, in plain logic; `on` [rows, k] of its inputs."""
    a = on.T
    return {
        "copy": lambda: a[0],
        "or": lambda: on.any(1),
        "and": lambda: on.all(1),
        "k_of_n": lambda: on.sum(1) >= 2,
        "and_not": lambda: a[0] & ~a[1],
        "and_not_subset": lambda: a[0] & ~a[1],
        "mixed": lambda: (a[0] | a[1]) & ~a[2],
        "xor": lambda: a[0] ^ a[1],
        "and_or": lambda: a[0] & (a[1] | a[2]),
    }[gate.kind]()


def test_every_kind_obeys_its_definition_without_noise():
    mix = {**dict.fromkeys(IN_CLASS, 1.0), **dict.fromkeys(OUT_OF_CLASS, 1.0)}
    planted = PlantedFeatures(width_in=256, width_out=200, mix=mix, noise=QUIET).plant()
    f_in, f_out = _dense(planted)
    for gate in planted.gates:
        x = f_in[:, list(gate.inputs)]
        z = (x.double() @ torch.tensor(gate.weights, dtype=torch.float64) + gate.bias).float()
        if gate.kind == "graded":
            expected = torch.where(z > 0, z.clamp_min(0.02), 0.0)
        else:
            expected = torch.where(_open(gate, x > 0), z.clamp_min(0.1), 0.0)
        torch.testing.assert_close(f_out[:, gate.out], expected)
    assert {g.kind for g in planted.gates} == set(mix)


def test_subsets_fire_only_inside_their_hosts_and_copies_repeat_them():
    planted = PlantedFeatures(width_in=256, copies=0.1, noise=QUIET).plant()
    world, f_in = planted.world, _dense(planted)[0]
    for role in ("subset", "copy"):
        for cluster, slot in zip(*(world.role == role).nonzero(), strict=True):
            base = cluster * world.size
            one, host = f_in[:, base + slot], f_in[:, base + world.host[cluster, slot]]
            assert not ((one > 0) & (host == 0)).any()
            if role == "copy":
                assert torch.equal(one, host)
    assert not {i for g in planted.gates for i in g.inputs} & set(
        np.flatnonzero(np.isin(world.role, ["copy", "shadow"])).tolist()
    )


def test_noise_drops_and_adds_at_the_stated_rates():
    settings = {"width_in": 256, "mix": {"copy": 1.0}}
    clean = PlantedFeatures(**settings, noise=QUIET).plant()
    f_in, _ = clean.sample(5000)
    on = f_in.to_dense()[:, [g.inputs[0] for g in clean.gates]] > 0
    for noise, low, high in ((Noise(0.3, 0.0, 0.0, 0.1), 0.69, 0.71), (Noise(0.0, 0.0, 0.0, 0.1), 1.0, 1.0)):
        planted = PlantedFeatures(**settings, noise=noise).plant()
        fired = planted.sample(5000)[1].to_dense() > 0
        assert low <= fired[on].float().mean() <= high
        assert not fired[~on].any()
    spurious = PlantedFeatures(**settings, noise=Noise(0.0, 4.0, 0.0, 0.1)).plant()
    extra = (spurious.sample(5000)[1].to_dense() > 0)[~on].sum() / 5000
    assert 3.5 < extra < 4.0  # a few of the four fall on outputs that fire anyway


def test_leak_opens_closed_gates():
    planted = PlantedFeatures(width_in=256, mix={"and": 1.0}, noise=Noise(0.0, 0.0, 0.1, 0.1)).plant()
    f_in, f_out = _dense(planted, 20_000)
    one = torch.stack([(f_in[:, list(g.inputs)] > 0).sum(1) == 1 for g in planted.gates], 1)
    assert (f_out > 0)[one].float().mean() == pytest.approx(0.1, abs=0.01)


def test_a_stream_holds_the_rows_of_the_sample_and_seeds_matter():
    planted = PlantedFeatures(width_in=64, cluster=16).plant()
    whole = planted.sample(30_000, seed=3)
    parts = list(planted.stream(30_000, seed=3))
    for side in (0, 1):
        assert torch.equal(torch.cat([p[side].to_dense() for p in parts]), whole[side].to_dense())
    assert not torch.equal(planted.sample(100, seed=4)[0].to_dense(), whole[0].to_dense()[:100])
    assert PlantedFeatures(width_in=64, cluster=16).plant().gates == planted.gates


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"width_in": 40}, ("two clusters", "width_in=40")),
        ({"width_in": 64, "cluster": 16, "mix": {"nand": 1.0}}, ("nand", "and")),
        ({"width_in": 64, "cluster": 16, "mix": {"or": 0.0}}, ("positive share",)),
        ({"width_in": 64, "cluster": 16, "subsets": 0.0}, ("this world has none", "`subsets`")),
        ({"width_in": 64, "cluster": 16, "subsets": 0.9}, ("at most .6",)),
    ],
)
def test_settings_that_cannot_be_planted_are_refused(settings, parts):
    with pytest.raises(ConfigError) as error:
        PlantedFeatures(**settings).plant()
    assert all(part in str(error.value) for part in parts)


def test_noise_out_of_range_is_refused():
    with pytest.raises(ConfigError, match="dropped"):
        Noise(dropped=1.2)
    with pytest.raises(ConfigError, match="severe"):
        Noise.level("sever")

"""Level sets, LSRDR, clusters, superposition, topology."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from gatelens import invariants
from gatelens.errors import BasisError, ConfigError, DataError, NonFiniteError, TooLargeError
from gatelens.invariants.lsrdr import LSRDR, cosine, dominant


def test_level_sets_of_two_functions_on_five_elements_differ():
    first = invariants.level_sets({1: "a", 2: "a", 3: "a", 4: "a", 5: "b"})
    second = invariants.level_sets({1: "a", 2: "a", 3: "a", 4: "b", 5: "b"})
    assert (first.sizes, second.sizes) == ((4, 1), (3, 2))
    assert first != second
    assert first.intermediate == second.intermediate == 2  # both factor through two elements, not one
    relabelled = invariants.level_sets(lambda x: -((x + 2) % 5 < 1), range(5))
    assert relabelled == first


def test_chains_that_look_alike_layer_by_layer_are_told_apart():
    inner = {1: "a", 2: "a", 3: "b", 4: "c", 5: "c"}
    with_large = {"a": 0, "b": 0, "c": 1}  # unites a pair with the single one
    with_pairs = {"a": 0, "b": 1, "c": 0}  # unites the two pairs
    assert invariants.level_sets(with_large) == invariants.level_sets(with_pairs)
    assert invariants.chain_form([inner, with_large]) != invariants.chain_form([inner, with_pairs])
    renamed = {5: "p", 4: "p", 3: "q", 2: "r", 1: "r"}
    assert invariants.chain_form([renamed, {"r": "x", "q": "x", "p": "y"}]) == invariants.chain_form(
        [inner, with_large]
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: invariants.level_sets({}), "domain is empty"),
        (lambda: invariants.level_sets(lambda x: x), "a callable needs its domain"),
        (lambda: invariants.chain_form([]), "empty chain"),
        (lambda: invariants.chain_form([{1: 2}, {3: 4}]), "function 1 of the chain is not defined on 2"),
    ],
)
def test_level_sets_refuse(call, message):
    with pytest.raises(DataError, match=message):
        call()


def planted(
    seed: int, noise: float = 0.1, blocks: int = 3, size: int = 5, r: int = 6
) -> tuple[torch.Tensor, torch.Tensor]:
    """A stack [r, n, n] that is strong within blocks of neurons (each block a little weaker than the last), and labels."""
    generator = torch.Generator().manual_seed(seed)
    n = blocks * size
    stack = noise * torch.randn(r, n, n, generator=generator, dtype=torch.float64)
    for b in range(blocks):
        part = slice(b * size, (b + 1) * size)
        stack[:, part, part] += (1 - 0.2 * b) * torch.randn(r, size, size, generator=generator, dtype=torch.float64)
    order = torch.randperm(n, generator=generator)
    return stack[:, order][:, :, order], order // size


def test_dominant_eigenvalue_is_the_spectral_radius_of_the_kronecker_sum():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(4, 5, 5, generator=generator, dtype=torch.float64)
    x = torch.rand(4, 3, 3, generator=generator, dtype=torch.float64)
    matrix = sum(torch.kron(p, q) for p, q in zip(a, x, strict=True))
    radius = torch.linalg.eigvals(matrix).abs().max().item()  # type: ignore[union-attr]
    assert dominant(a, x, torch.ones(5, 3, dtype=torch.float64), 200)[0] == pytest.approx(radius, rel=1e-9)
    own = torch.linalg.eigvals(sum(torch.kron(p, p) for p in a)).abs().max().item()  # type: ignore[arg-type]
    other = torch.linalg.eigvals(sum(torch.kron(p, p) for p in x)).abs().max().item()  # type: ignore[arg-type]
    assert invariants.spectral_similarity(a, x) == pytest.approx(radius / math.sqrt(own * other), rel=1e-6)
    assert invariants.spectral_similarity(a, 3 * a) == pytest.approx(1, abs=1e-9)


def test_the_ascent_ends_where_the_gradient_vanishes():
    stack, _ = planted(0, noise=0.3)
    x = LSRDR(4, starts=2).fit(stack).matrices.clone().requires_grad_(True)

    def objective(x: torch.Tensor) -> torch.Tensor:
        both = torch.linalg.eigvals(sum(torch.kron(p, q) for p, q in zip(stack, x, strict=True))).abs().max()  # type: ignore[union-attr]
        own = torch.linalg.eigvals(sum(torch.kron(q, q) for q in x)).abs().max()  # type: ignore[arg-type]
        return both.log() - own.log() / 2

    (at_optimum,) = torch.autograd.grad(objective(x), x)
    elsewhere = (x + 0.1 * x.norm() / x.numel() ** 0.5 * torch.randn_like(x)).detach().requires_grad_(True)
    (near,) = torch.autograd.grad(objective(elsewhere), elsewhere)
    assert at_optimum.norm() < 0.1 * near.norm()


def test_lsrdr_finds_the_strongest_block_whatever_the_start():
    stack, label = planted(1)
    one, other = LSRDR(5, starts=3, seed=0).fit(stack), LSRDR(5, starts=3, seed=99).fit(stack)
    assert cosine(one.projection, other.projection) > 0.99
    torch.testing.assert_close(one.projection @ one.projection, one.projection, atol=1e-8, rtol=0)
    assert one.projection.trace().item() == pytest.approx(5)
    assert one.projection.diagonal()[label == 0].mean() > 0.95
    assert one.similarity > 0.99
    noise = torch.randn(6, 15, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert LSRDR(5, starts=2).fit(noise).similarity < 0.95  # the null: nothing to find


def test_clusters_recover_planted_blocks():
    stack, label = planted(2)
    found = invariants.neuron_clusters(stack, LSRDR(5, starts=3), 3)
    assert adjusted_rand_score(label, found.label) == 1.0
    assert min(found.share[:2]) > 0.9 > found.random_share
    assert "shuffled" in repr(found)
    with pytest.raises(DataError, match="4 clusters of 5 need at least 20 neurons"):
        invariants.neuron_clusters(stack, LSRDR(5), 4)


@pytest.mark.parametrize(
    ("stack", "d", "error", "message"),
    [
        (torch.randn(2, 4, 4), 4, DataError, "expected a width d from 1 to 3"),
        (torch.zeros(2, 4, 4), 2, DataError, "spectral radius of the stack is zero"),
        (torch.full((2, 4, 4), torch.nan), 2, NonFiniteError, "NaN or infinity"),
        (torch.zeros(0, 4, 4), 2, DataError, "at least one square matrix"),
    ],
)
def test_lsrdr_refuses(stack, d, error, message):
    with pytest.raises(error, match=message):
        LSRDR(d).fit(stack)


def test_superposition_of_an_orthonormal_basis_and_of_a_random_code():
    neurons = invariants.superposition(torch.eye(16))
    assert (neurons.features_per_dimension, neurons.interference, neurons.alignment) == (1.0, 0.0, 1.0)
    code = torch.randn(200, 16, generator=torch.Generator().manual_seed(5))
    packed = invariants.superposition(torch.cat([code, torch.zeros(1, 16)]))
    assert packed.dead == 1
    assert packed.interference == pytest.approx(1 / 4, abs=0.01)
    assert packed.interference == pytest.approx(packed.random_interference, abs=0.01)
    assert packed.worst >= packed.welch == pytest.approx(math.sqrt(184 / (16 * 199)))
    with pytest.raises(BasisError, match="at least two directions"):
        invariants.superposition(torch.zeros(5, 3))


def test_linearity_flags_a_nonlinear_code():
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(6, 4, generator=generator)
    f = torch.rand(100, 6, generator=generator) * (torch.rand(100, 6, generator=generator) < 0.5)
    affine = invariants.linearity(lambda f: f @ decoder + 3.0, f, f @ decoder + 3.0)
    assert affine.linear
    assert affine.unexplained == pytest.approx(0, abs=1e-9)
    assert affine.random_unexplained is not None
    assert affine.random_unexplained > 1

    def digits(f: torch.Tensor, z: float = 10.0) -> torch.Tensor:
        """Two numbers of [0, 1) packed into one, (floor(z a) + b) / z: both can be read back, neither by a direction."""
        return ((z * f[:, :1]).floor() + f[:, 1:]) / z

    two = torch.rand(500, 2, generator=generator)
    packed = digits(two)
    torch.testing.assert_close(10 * packed - (10 * packed).floor(), two[:, 1:], atol=1e-4, rtol=0)
    found = invariants.linearity(digits, two)
    assert not found.linear
    # it adds up, but a feature's contribution is not in proportion to it
    assert found.additivity < 1e-5
    assert found.scaling > 0.03
    assert not invariants.linearity(lambda f: torch.sin(3 * f @ decoder), f).linear
    with pytest.raises(DataError, match="the same vector for every row"):
        invariants.linearity(lambda f: torch.ones(len(f), 4), f)


def test_topology_finds_a_circle_and_not_in_a_gaussian_cloud():
    pytest.importorskip("ripser", reason="ripser is the optional extra `topology`")
    generator = torch.Generator().manual_seed(0)
    angle = torch.rand(120, generator=generator) * 2 * math.pi
    circle = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(120, 2, generator=generator)
    found = invariants.persistent_homology(circle, draws=19)
    assert found.p_value(1) == pytest.approx(1 / 20)
    assert found.bars[1][0] > 2 * max(found.random[1])
    cloud = torch.randn(120, 2, generator=generator)
    plain = invariants.persistent_homology(cloud, draws=19)
    assert plain.bars[1][0] < 1.5 * max(plain.random[1])
    with pytest.raises(DataError, match="constant, or nearly"):
        invariants.persistent_homology(torch.ones(50, 3))
    with pytest.raises(TooLargeError, match="at most 1000 points"):
        invariants.persistent_homology(circle, points=5000)


def test_topology_without_its_library_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ripser", None)
    with pytest.raises(ConfigError, match=r"pip install gatelens\[topology\]"):
        invariants.persistent_homology(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)))

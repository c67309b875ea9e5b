"""JacobianRotation over chains, rotations grouped into weights, the questions, and the picture's data."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from _rotation_matching import match_rotations
from _rotation_more import composition_match, ends_are_neurons, uniqueness

from gatelens import HookedMLP, JacobianRotation
from gatelens.bases.rotation import (
    FittedRotation,
    Invertible,
    absorb,
    baseline_table,
    fit_rotation,
    inputs_needed,
    jacobian_picture,
    rotated_segment,
    rotation_against_neurons,
)
from gatelens.bases.rotation.baselines import rotation_report, verdict
from gatelens.bases.rotation.starts import polar, random_rotation
from gatelens.basis.linear import PCA, Neurons, Rotation, basis_width, directions
from gatelens.errors import BasisError, GateLensWarning, ModelError
from gatelens.jacobians import feature_jacobian, jacobian_columns, sparsity
from gatelens.segments import MLPWeights, Segment, mlp_segments

WIDTHS = (20, 12, 12, 12, 5)


@pytest.fixture(scope="module")
def model():
    return HookedMLP(WIDTHS, seed=0).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def acts(model):
    x = torch.randn(200, WIDTHS[0], generator=torch.Generator().manual_seed(1))
    _, cache = model.run_with_cache(x)
    return dict(cache)


def hidden_sparse(rows=150, n=10, seed=0) -> tuple[Segment, torch.Tensor, torch.Tensor]:
    """A gated map whose Jacobian is sparse in rotated coordinates U, V: y = U^T relu(S V x), S and V x at random."""
    g = torch.Generator().manual_seed(seed)
    u, v = random_rotation(n, seed + 1), random_rotation(n, seed + 2)
    s = torch.randn(n, 4 * n, generator=g) * (torch.rand(n, 4 * n, generator=g) < 0.15)
    weights = MLPWeights(v.T @ s, torch.zeros(4 * n), torch.randn(4 * n, n, generator=g) * (s.T != 0) @ u, act="relu")
    return Segment("a", "b", weights, n, n, weights), u, torch.randn(rows, n, generator=g)


def test_forward_reads_each_layer_in_the_coordinates_of_the_one_before(model, acts):
    segments = mlp_segments(model)
    recipe = JacobianRotation(columns=40, neighbours=0)
    bases = recipe.fit(segments, acts)
    assert list(bases) == ["hook_post.0", "hook_post.1", "hook_post.2"]
    assert "neurons" in repr(bases["hook_post.0"])
    by_hand = recipe.fit_columns(
        jacobian_columns(
            segments[1],
            acts["hook_post.1"][torch.randperm(200, generator=torch.Generator().manual_seed(0))[:64]],
            recipe.per_input(segments[1], "out", 64),
            basis_in=bases["hook_post.1"],
        )
    )
    assert torch.equal(bases["hook_post.2"].matrix, by_hand.matrix)


@pytest.mark.filterwarnings("ignore:.*point in only.*", "ignore:the columns span")
def test_backward_rotates_inputs_and_leaves_the_output(model, acts):
    bases = JacobianRotation("backward", columns=40).fit(mlp_segments(model), acts)
    assert isinstance(bases["hook_post.0"], FittedRotation)
    assert isinstance(bases["hook_post.1"], FittedRotation)
    assert bases["hook_post.2"].label == "neurons"


def test_the_input_side_of_a_gated_map_is_warned_of(model, acts):
    with pytest.warns(GateLensWarning, match="only 12 directions.*plain QR"):
        JacobianRotation("backward", columns=40).fit(mlp_segments(model)[:1], acts)


@pytest.mark.filterwarnings("ignore:.*point in only.*")
def test_both_sides_are_sparser_than_one():
    segment, _, x = hidden_sparse()
    acts = {"a": x, "b": segment.forward(x)}

    def l1(direction):
        bases = JacobianRotation(direction, columns=40).fit([segment], acts)
        return sparsity(feature_jacobian(segment, x, bases["a"], bases["b"])).l1

    neurons = sparsity(feature_jacobian(segment, x)).l1
    assert l1("both") < l1("forward") < neurons


def test_planted_output_coordinates_are_found():
    segment, u, x = hidden_sparse()
    found = JacobianRotation().fit([segment], {"a": x})["b"]
    columns = jacobian_columns(segment, x)
    assert sparsity(found.matrix @ columns).l1 <= 1.01 * sparsity(u @ columns).l1
    assert match_rotations(found.matrix, u) > 0.7


def test_a_basis_is_a_basis_even_when_it_is_not_orthogonal(model, acts):
    bases = JacobianRotation(method="invertible", columns=20, iterations=20).fit(mlp_segments(model)[:1], acts)
    basis = bases["hook_post.1"]
    assert isinstance(basis, Invertible)
    torch.testing.assert_close(basis.decode(basis.encode(acts["hook_post.1"])), acts["hook_post.1"], atol=1e-4, rtol=0)


def test_fitted_bases_come_back_from_disk_with_their_traces(model, acts, tmp_path):
    from gatelens.saving import load_basis, save_basis

    segment = mlp_segments(model)[0]
    for method in ("chain", "invertible"):
        basis = JacobianRotation(method=method, columns=20, iterations=10).fit([segment], acts)[segment.hook_out]
        save_basis(basis, tmp_path / method)
        again = load_basis(tmp_path / method)
        assert type(again) is type(basis)
        assert (again.trace, again.label) == (basis.trace, basis.label)
        assert torch.equal(again.encode(acts[segment.hook_out]), basis.encode(acts[segment.hook_out]))


def test_jacobians_that_are_not_square_or_have_no_full_rank_are_fitted_with_a_warning_where_one_is_due():
    g = torch.Generator().manual_seed(0)
    wide = MLPWeights(torch.randn(9, 30, generator=g), torch.zeros(30), torch.randn(30, 5, generator=g), act="relu")
    x = torch.randn(80, 9, generator=g)
    found = JacobianRotation(iterations=5).fit([Segment("a", "b", wide, 9, 5, wide)], {"a": x})["b"]
    assert found.matrix.shape == (5, 5)
    wide.W_out[:, 3:] = wide.W_out[:, :2]  # four outputs along two directions
    wide.W_out[:, 2] = 0  # and one of them dead
    with pytest.warns(GateLensWarning, match="span 2 of 4 live dimensions"):
        found = JacobianRotation(iterations=5).fit([Segment("a", "b", wide, 9, 5, wide)], {"a": x})["b"]
    assert found.dead == 1
    torch.testing.assert_close(found.matrix @ found.matrix.T, torch.eye(5), atol=1e-5, rtol=0)


def test_inputs_at_which_nothing_moves_are_left_out_and_all_of_them_are_an_error():
    g = torch.Generator().manual_seed(0)
    relu = MLPWeights(torch.eye(4), torch.zeros(4), torch.randn(4, 4, generator=g), act="relu")
    segment = Segment("a", "b", relu, 4, 4, relu)
    x = torch.cat([torch.rand(20, 1, generator=g), torch.randn(20, 3, generator=g)], 1)
    x[:3] = -1
    with pytest.warns(GateLensWarning, match="3 of 20 inputs have a zero Jacobian"):
        JacobianRotation("backward", iterations=2).fit([segment], {"a": x})
    with pytest.raises(BasisError, match="zero at every input"):
        JacobianRotation().fit([segment], {"a": -x.abs()})


def test_points_nearby_help_where_inputs_are_few():
    model = HookedMLP((20, 24, 24, 5), seed=0).eval().requires_grad_(False)
    (segment,) = mlp_segments(model)
    without, beside = (JacobianRotation(inputs=8, columns=8, iterations=40, neighbours=k) for k in (0, 3))
    change = []
    for seed in range(3):
        x = torch.randn(200, 20, generator=torch.Generator().manual_seed(seed))
        h = model.run_with_cache(x)[1][segment.hook_in]
        unseen, acts = jacobian_columns(segment, h[100:]), {segment.hook_in: h[:100]}
        fits = (recipe.fit([segment], acts)[segment.hook_out] for recipe in (without, beside))
        one, other = (sparsity(basis.encode(unseen.T)).l1 for basis in fits)
        change.append(other / one - 1)
    assert sum(change) / 3 < -0.008


def test_points_nearby_are_left_out_where_they_would_take_minutes_and_for_other_methods():
    few, many = (Segment("a", "b", torch.nn.Identity(), d, d, None) for d in (256, 257))
    assert [JacobianRotation().points_each(s.d_out) for s in (few, many)] == [3, 0]
    assert [JacobianRotation(neighbours=2).points_each(s.d_in) for s in (few, many)] == [2, 2]
    assert JacobianRotation(method="svd", neighbours=2).points_each(few.d_out) == 0


def test_bad_settings_and_chains_are_named(model, acts):
    segments = mlp_segments(model)
    with pytest.raises(BasisError, match='direction must be "forward"'):
        JacobianRotation("sideways")
    for eps in (0.0, -1.0):
        with pytest.raises(BasisError, match="eps must be positive"):
            JacobianRotation(eps=eps)
    with pytest.raises(BasisError, match="must be positive, got 0"):
        JacobianRotation(inputs=0)
    with pytest.raises(BasisError, match="neighbours must be 0 or more and spread positive, got -1 and 0.35"):
        JacobianRotation(neighbours=-1)
    with pytest.raises(BasisError, match="did you mean"):
        JacobianRotation(method="chian")
    with pytest.raises(BasisError, match="order in which data flows"):
        JacobianRotation().fit(segments[::-1], acts)
    with pytest.raises(BasisError, match="different ends"):
        JacobianRotation().fit([], acts)


def test_the_absorbed_network_computes_the_same_function(model, acts):
    x = acts["hook_in"]
    rotations = JacobianRotation(columns=20).fit(mlp_segments(model), acts)
    rotations["hook_post.0"] = Rotation(random_rotation(12, 5), acts["hook_post.0"].mean(0))
    rotations["hook_in"] = Rotation(random_rotation(20, 6))
    rotations["hook_post.1"] = Invertible.from_matrix(torch.eye(12) + 0.1 * torch.randn(12, 12))
    rotated = absorb(model, rotations)
    logits, cache = rotated.run_with_cache(x)
    clean = model(x)
    assert (logits - clean).abs().max() <= 1e-5 * clean.abs().max()
    assert torch.equal(logits.argmax(1), clean.argmax(1))
    for hook in ("hook_in", "hook_post.0", "hook_post.1", "hook_post.2"):
        torch.testing.assert_close(cache[hook], rotations[hook].encode(acts[hook]), atol=1e-5, rtol=0)
    torch.testing.assert_close(cache["hook_pre.1"], acts["hook_pre.1"], atol=1e-5, rtol=0)


def test_no_step_makes_a_tensor_on_the_default_device(model, acts):
    """As in test_rotation: with "meta" as the default, a tensor made there would fail beside the activations."""
    segments = mlp_segments(model)
    recipe = JacobianRotation(columns=10, iterations=2)
    own = torch.nn.Linear(12, 7)
    own.encode, own.decode = own.forward, lambda f: f @ own.weight
    with torch.device("meta"):
        assert basis_width(own, 12) == 7
        torch.testing.assert_close(directions(own, 7), own.weight)
        assert Neurons().fit(segments, acts)["hook_post.0"].matrix.device.type == "cpu"
        bases = recipe.fit(segments, acts)
        report = rotation_report(segments, bases, acts, acts, recipe)
        assert report["hook_post.1"]["sparsity"]["fitted to noise"]["l1"] > 0
        rotated = rotated_segment(segments[1], bases["hook_post.1"], bases["hook_post.2"])
        assert rotated.forward(bases["hook_post.1"].encode(acts["hook_post.1"])).device.type == "cpu"


def test_what_would_change_the_function_is_refused(model, acts):
    with pytest.raises(BasisError, match="does not keep every direction"):
        absorb(model, {"hook_post.0": PCA(components=4).fit(mlp_segments(model), acts)["hook_post.0"]})
    with pytest.raises(BasisError, match="hook_in, hook_post.0.*got 'hook_pre.0'"):
        absorb(model, {"hook_pre.0": Rotation(torch.eye(12))})
    with pytest.raises(BasisError, match="width 5, the weights there have width 12"):
        absorb(model, {"hook_post.0": Rotation(torch.eye(5))})
    with pytest.raises(BasisError, match="only a rotation or an invertible map"):
        absorb(model, {"hook_post.0": SimpleNamespace(encode=abs, decode=abs)})
    with pytest.raises(ModelError, match="rotated_segment"):
        absorb(torch.nn.Linear(2, 2), {})


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("prenorm", [None, torch.nn.functional.normalize])
def test_a_rotated_segment_computes_between_features_and_keeps_closed_forms(gated, prenorm):
    g = torch.Generator().manual_seed(0)
    w = [torch.randn(*s, generator=g, dtype=torch.float64) for s in ((6, 9), (9,), (9, 4), (4,), (6, 9))]
    mlp = MLPWeights(w[0], w[1], w[2], w[3], "silu", w[4] if gated else None)
    segment = Segment("a", "b", mlp if prenorm is None else (lambda x: mlp(prenorm(x))), 6, 4, mlp, prenorm)
    mean = None if gated else torch.randn(6, dtype=torch.float64)
    into, out = Rotation(polar(random_rotation(6)), mean), Rotation(polar(random_rotation(4, 1)), w[3])
    rotated = rotated_segment(segment, into, out)
    x = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(rotated.forward(into.encode(x)), out.encode(segment.forward(x)))
    torch.testing.assert_close(feature_jacobian(rotated, into.encode(x)), feature_jacobian(segment, x, into, out))
    plain = rotated_segment(Segment("a", "b", segment.forward, 6, 4), into, out)
    torch.testing.assert_close(plain.forward(into.encode(x)), out.encode(segment.forward(x)))


def test_the_table_of_baselines_is_whole_and_the_verdict_follows_the_figures():
    segment, _, x = hidden_sparse()
    columns, held = jacobian_columns(segment, x[:75]), jacobian_columns(segment, x[75:])
    table = baseline_table(columns, held, fit_rotation(columns))
    assert list(table) == ["rotation", "neurons", "random", "svd", "qr", "fitted to noise"]
    assert table["rotation"].l1 < min(table[k].l1 for k in table if k != "rotation")
    assert table["fitted to noise"].l1 < sparsity(torch.randn(10, 750)).l1
    answer = rotation_against_neurons(columns, held)
    assert "on the reciprocal measure the rotation wins at every eps" in answer.verdict
    # sparse in the neurons already: they are kept; a rotation that was not started from them only loses, and it is said
    g = torch.Generator().manual_seed(0)
    sparse = torch.randn(10, 900, generator=g) * (torch.rand(10, 900, generator=g) < 0.3)
    columns, held = sparse[:, :60], sparse[:, 60:]
    assert rotation_against_neurons(columns, held).verdict.startswith("the neurons are kept")
    lost = verdict(baseline_table(columns, held, fit_rotation(columns, start="random"), noise=False))
    assert "the neuron basis wins" in lost
    assert "higher than in the neuron basis" in lost


def test_reports_hold_plain_values_for_fitted_hook_points_only(model, acts):
    import json

    segments = mlp_segments(model)
    bases = JacobianRotation(columns=20, iterations=20).fit(segments, acts)
    report = rotation_report(segments, bases, acts, acts, JacobianRotation(columns=20))
    assert set(report) == {"hook_post.1", "hook_post.2"}
    assert json.loads(json.dumps(report))["hook_post.1"]["sparsity"]["rotation"]["l1"] > 0
    assert rotation_report(segments, Neurons().fit(segments, acts), acts, acts) == {}


@pytest.mark.filterwarnings("ignore:.*point in only.*", "ignore:the columns span", "ignore:.*zero Jacobian")
def test_reports_measure_each_rotation_at_the_end_where_it_was_fitted(model, acts):
    segments = mlp_segments(model)
    for direction, sides in (
        ("forward", {"hook_post.1": "out", "hook_post.2": "out"}),
        ("backward", {"hook_post.0": "in", "hook_post.1": "in"}),
        ("both", {"hook_post.0": "in", "hook_post.1": "out", "hook_post.2": "out"}),
    ):
        recipe = JacobianRotation(direction, columns=20, iterations=5)
        report = rotation_report(segments, recipe.fit(segments, acts), acts, acts, recipe)
        assert {hook: entry["side"] for hook, entry in report.items()} == sides


def test_how_many_inputs_are_needed():
    segment, _, x = hidden_sparse()
    answer = inputs_needed(segment, x[:100], x[100:], counts=(1, 8, 64, 999))
    curve = [answer.figures[f"held out, {c} inputs"] for c in (1, 8, 64)]
    assert curve[2] < curve[0]
    assert answer.figures["fitted, 1 inputs"] < curve[0]  # one input is fitted, not learned from
    assert "neuron basis is beaten" in answer.verdict
    assert "neurons" in answer.baselines
    with pytest.raises(BasisError, match="between 1 and the 100 rows"):
        inputs_needed(segment, x[:100], x[100:], counts=(0, 101))


def test_uniqueness_where_the_answer_is_known():
    g = torch.Generator().manual_seed(0)
    planted = random_rotation(10, 1) @ (torch.randn(10, 600, generator=g) * (torch.rand(10, 600, generator=g) < 0.1))
    assert "does not hang on the start" in uniqueness(planted, 3).verdict
    noise = uniqueness(torch.randn(10, 400, generator=g), 3)
    assert noise.verdict.startswith("no")
    assert noise.figures["match over starts"] < 0.9
    with pytest.raises(BasisError, match="two or more"):
        uniqueness(planted, 1)


def test_the_ends_are_neurons_where_the_network_says_so():
    g = torch.Generator().manual_seed(0)
    sparse = torch.randn(12, 8, generator=g) * (torch.rand(12, 8, generator=g) < 0.2)
    first = MLPWeights(sparse, torch.zeros(8), act="relu")
    mixed = MLPWeights(torch.randn(8, 30, generator=g), torch.zeros(30), sparse.new_zeros(30, 8), act="relu")
    mixed.W_out.copy_(torch.randn(30, 8, generator=g) * (torch.rand(30, 8, generator=g) < 0.2) @ random_rotation(8, 3))
    segments = [Segment("a", "b", first, 12, 8, first), Segment("b", "c", mixed, 8, 8, mixed)]
    x = torch.randn(200, 12, generator=g)
    answer = ends_are_neurons(segments, {"a": x, "b": first(x)})
    assert answer.figures["b: match with the neurons"] > 0.9 > answer.figures["c: match with the neurons"]
    assert answer.verdict == "the identity is found for the first map"


def test_composition_is_judged_against_random_pairs_and_refits():
    segment, _, x = hidden_sparse(300)
    y = segment.forward(x)
    # a map that reads y in the planted coordinates U, sparsely, through many gates
    _, u, _ = hidden_sparse()
    g = torch.Generator().manual_seed(9)
    reads = torch.randn(10, 40, generator=g) * (torch.rand(10, 40, generator=g) < 0.12)
    after = MLPWeights(u.T @ reads, torch.zeros(40), torch.eye(40), act="relu")
    second = Segment("b", "c", after, 10, 40, after)
    answer = composition_match(segment, second, {"a": x, "b": y})
    assert answer.figures["match"] > answer.baselines["random pairs"] + 0.1
    # and one that reads it in random coordinates
    other = MLPWeights(random_rotation(10, 77) @ reads, torch.zeros(40), torch.eye(40), act="relu")
    against = composition_match(segment, Segment("b", "c", other, 10, 40, other), {"a": x, "b": y})
    assert against.figures["match"] < answer.figures["match"] - 0.1
    assert "no match" in against.verdict
    with pytest.raises(BasisError, match="do not meet"):
        composition_match(segment, segment, {"a": x})


def test_the_pictures_data_is_on_one_scale_for_both_parts():
    segment, u, x = hidden_sparse()
    picture = jacobian_picture(segment, x[:50], x[50:], None, Rotation(u))
    assert list(picture.matrices) == ["before, fitted", "before, held out", "after, fitted", "after, held out"]
    for matrix in picture.matrices.values():
        assert float(matrix.square().mean()) == pytest.approx(1.0, rel=1e-4)
    assert picture.shares["after, held out"][0.1] < picture.shares["before, held out"][0.1]
    assert picture.l1["after, fitted"] < picture.l1["before, fitted"]
    assert picture.scale > 1
    with pytest.raises(BasisError, match="got 50 and 0"):
        jacobian_picture(segment, x[:50], x[:0], None, None)


def test_the_figure_is_well_formed_the_same_every_time_and_says_what_it_shows():
    from xml.etree import ElementTree

    from gatelens.views.jacobians import jacobian_figure

    segment, _, x = hidden_sparse()
    basis = fit_rotation(jacobian_columns(segment, x[:60]))
    picture = jacobian_picture(segment, x[:50], x[50:], None, basis)
    svg = jacobian_figure(picture)
    assert svg == jacobian_figure(picture)
    root = ElementTree.fromstring(svg)
    assert len(root.findall(".//{*}image")) >= 4
    text = " ".join(root.itertext())
    for said in (
        "before, fitted",
        "after, held out",
        "one of 50 fitted and one of 100 held-out inputs",
        "L1, mu 0.02: ",
    ):
        assert said in text
    unfitted = jacobian_picture(segment, x[:50], x[50:], None, fit_rotation(jacobian_columns(segment, x), "svd"))
    assert "no iterations" in jacobian_figure(unfitted)


def test_the_verdict_names_a_plain_basis_that_does_as_well():
    g = torch.Generator().manual_seed(0)
    # one direction an input: what SVD finds by itself, here of very unequal sizes
    columns = (
        random_rotation(6, 1)
        @ torch.diag(2.0 ** -torch.arange(6.0))
        @ torch.eye(6)[:, torch.randint(6, (300,), generator=g)]
    )
    table = baseline_table(columns, columns, fit_rotation(columns, "random", seed=4), noise=False)
    assert "svd" in verdict(table).split("; ")[-1]

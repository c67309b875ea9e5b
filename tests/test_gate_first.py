"""Gate-first dictionaries: gates that were planted are found; sparse derivatives equal autograd's; bad input is refused."""

from __future__ import annotations

import pytest
import torch
from _explained import explained

from gatelens.basis.linear import Rotation
from gatelens.circuits import Circuit, features_at
from gatelens.codes.active import ActiveLinear, Chooser, decode_active
from gatelens.codes.rows import Codes
from gatelens.connectors import Connector
from gatelens.edits.counterfactual import Counterfactual
from gatelens.edits.kinds import removal
from gatelens.errors import BasisError, TooLargeError
from gatelens.evaluation import splice
from gatelens.evaluation.causal import edit_figures
from gatelens.evaluation.figures import connector_figures
from gatelens.evaluation.parts import cut
from gatelens.gate_dictionaries.gate_basis import GateBasis
from gatelens.gate_dictionaries.gate_first import GateDictionary
from gatelens.gate_dictionaries.gate_run import GateTraining
from gatelens.gate_dictionaries.gate_start import GateStart, omp_wires
from gatelens.gate_dictionaries.gate_training import GateRun, _ActiveGates
from gatelens.gate_dictionaries.input_tuning import InputTuning
from gatelens.gate_dictionaries.rows import Rows
from gatelens.saving import load_basis, save_basis
from gatelens.segments import Segment
from gatelens.solvers.built_in import BuiltInWires
from gatelens.views.summary import sentence
from support.dictionaries import Nonnegative

WIDTH, GATES, FAN_IN = 24, 12, 2


def planted(rows=3000, seed=0):
    """x sparse and nonnegative; y = relu(A x - 1) D, each gate the sum of two inputs above a threshold: ANDs."""
    generator = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, WIDTH, generator=generator) < 0.25
    x = on * (0.8 + 0.4 * torch.rand(rows, WIDTH, generator=generator))
    parents = torch.arange(WIDTH).view(GATES, FAN_IN)
    weight = torch.zeros(GATES, WIDTH).scatter_(1, parents, 1.0)
    dictionary = torch.linalg.qr(torch.randn(16, GATES, generator=generator))[0].T
    segment = Segment("in", "out", lambda x: (x @ weight.T - 1.2).clamp_min(0) @ dictionary, WIDTH, 16)
    return segment, x, segment.forward(x), parents, Rotation(dictionary)


def recipe(**rest):
    settings = {"fan_in": FAN_IN, "l0": 1.0, "rounds": 3, "swap": 1, "dense_share": 0.9, "batch_size": 128, "lr": 2e-2}
    settings |= {"counterfactual": None, "samples": 30_000}
    return GateDictionary(**{**settings, **rest})


@pytest.fixture(scope="module")
def fitted():
    segment, x, y, parents, start = planted()
    inputs, outputs = {"in": Nonnegative(WIDTH)}, {"out": start}
    bases = recipe(inputs=inputs, outputs=outputs).fit([segment], {"in": x, "out": y})
    return segment, x, y, parents, bases


def test_planted_gates_are_found_and_explain_the_output(fitted):
    _, x, y, parents, bases = fitted
    gates = bases["out"]
    assert isinstance(gates, GateBasis)
    assert gates.connector.fan_in().max() <= FAN_IN
    found = {tuple(sorted(gates.connector.parents(i)[0].tolist())) for i in range(GATES)}
    true = {tuple(row) for row in parents.tolist()}
    assert len(found & true) >= GATES - 2
    assert explained(gates, x, y) < 0.25
    linear = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
    rest = (torch.cat([x, torch.ones(len(x), 1)], 1) @ linear - y).square().sum() / (y - y.mean(0)).square().sum()
    assert explained(gates, x, y) < 0.7 * rest, "ANDs must be explained better than any linear map explains them"


def test_regrowth_finds_parents_that_the_start_has_wrong():
    _, x, y, parents, start = planted()
    wrong = torch.stack([parents[:, 0], (parents[:, 1] + 10) % WIDTH], 1)
    true, found, left = {tuple(p) for p in parents.tolist()}, [], []
    for rounds in (0, 8):
        first = GateStart(
            wrong.clone(), torch.full((GATES, FAN_IN), 0.5), torch.full((GATES,), -0.1), start.matrix, torch.zeros(16)
        )
        settings = GateTraining(1.0, 0.0, 400, 128, 2e-2, rounds, 2, 0)
        run = GateRun(Rows(Codes.of(x), y, None), first, torch.ones(WIDTH, dtype=torch.bool), settings)
        run.train()
        pre, (threshold, _) = run.pre(Codes.of(x)), run.threshold(torch.arange(len(x)))
        y_hat = torch.where(pre > threshold, pre, 0.0) @ run.dictionary.detach() + run.offset.detach()
        found.append(len({tuple(sorted(p)) for p in run.parents.tolist()} & true))
        left.append(float((y_hat - y).square().sum()))
    assert found[0] == 0
    assert found[1] >= 4
    assert left[1] < 0.8 * left[0]


def test_pairs_part_inputs_that_natural_rows_never_part():
    _, x, _, parents, start = planted()
    x = x.clone()
    x[:, 1::2] = x[:, 0::2]  # the two inputs of every gate always come together
    weight = torch.zeros(GATES, WIDTH).scatter_(1, parents, 1.0)
    segment = Segment("in", "out", lambda x: (x @ weight.T - 0.4).clamp_min(0) @ start.matrix, WIDTH, 16)
    y = segment.forward(x)
    changed = x.clone()
    changed[:, 0::2] = 0  # one of them is enough to open it
    true = segment.forward(changed) - y
    errors = []
    for edits in (None, Counterfactual(drop=(0.1, 0.3), pairs=20_000)):
        gates = recipe(counterfactual=edits, l0=3.0, samples=40_000).train(segment, Nonnegative(WIDTH), start, x, y)
        left = gates.decode(gates.connector(changed) - gates.connector(x)) - gates.b_dec - true
        errors.append(float(left.square().sum() / true.square().sum()))
    assert errors[1] < 0.5 * errors[0]


def test_the_same_seed_gives_the_same_gates():
    segment, x, y, _, start = planted(1500)
    a, b = (
        recipe(samples=5_000, counterfactual=Counterfactual(pairs=2_000)).train(
            segment, Nonnegative(WIDTH), start, x, y
        )
        for _ in range(2)
    )
    assert torch.equal(a.connector.weight.to_dense(), b.connector.weight.to_dense())
    assert torch.equal(a.W_dec, b.W_dec)


def test_a_bypass_carries_what_is_linear():
    segment, x, _, _, start = planted(3000)
    generator = torch.Generator().manual_seed(1)
    linear = torch.randn(WIDTH, 16, generator=generator)
    both = Segment("in", "out", lambda x: segment.forward(x) + x @ linear, WIDTH, 16)
    with_bypass, without = (
        recipe(bypass=b).train(both, Nonnegative(WIDTH), start, x, both.forward(x)) for b in ("all", "none")
    )
    assert explained(with_bypass, x, both.forward(x)) < 0.5 * explained(without, x, both.forward(x))


def test_features_too_dense_for_a_parent_write_one_direction_each():
    """Gates of sparse inputs, and two inputs that are nearly always on and write a direction each: exactly what "dense" says."""
    segment, x, _, _, start = planted(3000)
    generator = torch.Generator().manual_seed(4)
    x = x.clone()
    x[:, -2:] = 0.5 + torch.rand(len(x), 2, generator=generator)
    written = torch.randn(2, 16, generator=generator)
    sparse = torch.cat([torch.ones(WIDTH - 2), torch.zeros(2)])
    both = Segment("in", "out", lambda x: segment.forward(x * sparse) + x[:, -2:] @ written, WIDTH, 16)
    y = both.forward(x)
    gates, left_out = (
        recipe(bypass=b, dense_share=0.5).train(both, Nonnegative(WIDTH), start, x, y) for b in ("dense", "none")
    )
    assert gates.bypassed == 2
    assert "2 input features go past the gates" in gates.by_construction
    assert gates.bypass_in.abs().sum(1).nonzero().squeeze(1).tolist() == [WIDTH - 2, WIDTH - 1]
    torch.testing.assert_close(gates.bypass_in[-2:], written, atol=0.15, rtol=0)
    assert explained(gates, x, y) < 0.3 * explained(left_out, x, y)
    assert int(gates.connector.weight.col_indices().max()) < WIDTH - 2


def test_a_bypass_counts_in_splices_figures_and_edits():
    """y = x V exactly, by the bypass alone: the spliced model, the FVU and the foreseen changes must all be the true ones."""
    generator = torch.Generator().manual_seed(2)
    linear, x = torch.randn(WIDTH, 16, generator=generator), torch.rand(200, WIDTH, generator=generator)
    segment = Segment("in", "out", lambda x: x @ linear, WIDTH, 16)
    silent = Connector.from_rows(
        [(torch.tensor([i]), torch.ones(1)) for i in range(16)], torch.full((16,), -9.0), WIDTH
    )
    gates = GateBasis(Nonnegative(WIDTH), silent, torch.eye(16), torch.zeros(16), WIDTH, linear, "in", "out")
    circuit = Circuit([segment], {"in": Nonnegative(WIDTH), "out": gates}, {segment.name: silent})
    halved = GateBasis(Nonnegative(WIDTH), silent, torch.eye(16), torch.zeros(16), WIDTH, linear / 2, "in", "out")
    hooks = dict(splice(Circuit([segment], {"in": Nonnegative(WIDTH), "out": halved}, {segment.name: silent})))
    hooks["in"](x)
    assert torch.allclose(hooks["out"](x @ linear), x @ linear / 2, atol=1e-5)
    assert connector_figures(silent, gates, cut(x), cut(silent(x)), x @ linear, x)["fvu"] == pytest.approx(0, abs=1e-6)
    found = edit_figures(segment, Nonnegative(WIDTH), gates, silent, x, removal, generator)
    assert found["r2"] == pytest.approx(1, abs=1e-5)
    figures = {"model": {"metric": "accuracy", "clean": 0.9, "ablated": 0.1}, "all_replaced": {"accuracy": 0.9}}
    assert f"and a linear map of {WIDTH} inputs past them" in sentence(circuit, figures)


def test_gates_are_read_from_the_input_and_kept_on_disk(fitted, tmp_path):
    segment, x, y, _, bases = fitted
    gates = bases["out"]
    f_out = gates.features_from(x[:50])
    assert torch.equal(f_out, gates.connector(x[:50]))
    features = features_at([segment], bases, {"in": x[:50], "out": y[:50]})
    assert torch.equal(features["out"], f_out)
    assert BuiltInWires().at(segment, bases["in"], gates).fit(x, f_out) is gates.connector
    with pytest.raises(BasisError, match=r"features_from.*in"):
        gates.encode(y)
    input_as_rotation = GateBasis(
        Rotation(torch.eye(WIDTH)), gates.connector, gates.W_dec, gates.b_dec, WIDTH, hook_in="in", hook_out="out"
    )
    save_basis(input_as_rotation, tmp_path)
    again = load_basis(tmp_path)
    assert torch.equal(again.features_from(x[:50]), f_out)
    assert torch.equal(again.decode(f_out), gates.decode(f_out))


def test_active_derivatives_equal_autograd():
    generator = torch.Generator().manual_seed(0)
    f, d, rows = 7, 5, 6
    x = torch.randn(rows, d, generator=generator, dtype=torch.float64)
    encoder, bias = (torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in ((f, d), (f,)))
    dictionary = torch.randn(f, d, generator=generator, dtype=torch.float64).requires_grad_()
    pre = x @ encoder.T + bias
    row, col = Chooser("relu", 1)(pre.detach())
    sparse = decode_active(dictionary, row, col, ActiveLinear.apply(encoder, bias, x, pre.detach(), row, col), rows)
    whole = pre.clamp_min(0) @ dictionary
    assert torch.allclose(sparse, whole)
    target = torch.randn(rows, d, generator=generator, dtype=torch.float64)
    ours = torch.autograd.grad((sparse - target).square().sum(), (encoder, bias, dictionary))
    theirs = torch.autograd.grad((whole - target).square().sum(), (encoder, bias, dictionary))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b)


def test_gate_derivatives_equal_autograd():
    generator = torch.Generator().manual_seed(0)
    n, k, m, rows = 5, 2, 6, 8
    weights = torch.randn(n, k, generator=generator, dtype=torch.float64).requires_grad_()
    bias = torch.randn(n, generator=generator, dtype=torch.float64).requires_grad_()
    parents = torch.stack([torch.randperm(m, generator=generator)[:k] for _ in range(n)])
    f = torch.rand(rows, m, generator=generator, dtype=torch.float64)
    pre = (f[:, parents] * weights).sum(-1) + bias
    row, col = (pre.detach() > 0).nonzero(as_tuple=True)
    value = _ActiveGates.apply(weights, bias, pre.detach()[row, col], f[row[:, None], parents[col]], col)
    for a, b in zip(
        torch.autograd.grad(value.square().sum(), (weights, bias)),
        torch.autograd.grad(pre.clamp_min(0).square().sum(), (weights, bias)),
        strict=True,
    ):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("activation", ["batchtopk", "topk", "relu"])
def test_the_chooser_takes_the_largest_positive_entries(activation):
    choose = Chooser(activation, 2)
    for seed in range(4):  # the threshold of the batch before narrows the search: it must never change the answer
        pre = torch.randn(20, 9, generator=torch.Generator().manual_seed(seed)) * (1 + 3 * seed)
        mask = torch.zeros_like(pre, dtype=torch.bool)
        mask[choose(pre)] = True
        positive = pre > 0
        if activation == "batchtopk":
            wanted = pre >= pre.flatten().sort(descending=True).values[39]
        elif activation == "topk":
            wanted = torch.zeros_like(mask).scatter_(1, pre.topk(2, dim=1).indices, True)
        else:
            wanted = positive
        assert torch.equal(mask, wanted & positive)


def test_the_start_is_least_squares_on_the_best_inputs():
    from sklearn.linear_model import OrthogonalMatchingPursuit

    generator = torch.Generator().manual_seed(0)
    f_in = torch.rand(400, 10, generator=generator) * (torch.rand(400, 10, generator=generator) < 0.4)
    f_out = (f_in[:, [3]] * 2 - f_in[:, [7]] + 0.1 * torch.randn(400, 1, generator=generator) + 1).clamp_min(0)
    parents, weights, bias = omp_wires(Codes.of(f_in), Codes.of(f_out), torch.ones(10, dtype=torch.bool), 2)
    reference = OrthogonalMatchingPursuit(n_nonzero_coefs=2).fit(f_in.numpy(), f_out[:, 0].numpy())
    ours = torch.zeros(10).scatter_(0, parents[0], weights[0])
    assert torch.allclose(ours.double(), torch.from_numpy(reference.coef_).double(), atol=1e-3)
    assert abs(float(bias[0]) - reference.intercept_) < 1e-3


def _train(**rest):
    segment, x, y, _, start = planted(300)
    given = {"basis_in": Nonnegative(WIDTH), "start": start, "x": x, "y": y, "segment": segment}
    given |= {k: v for k, v in rest.items() if k in given}
    return recipe(**{k: v for k, v in rest.items() if k not in given}).train(**given)


class Silent(Nonnegative):
    def encode(self, x):
        return torch.zeros(len(x), WIDTH)


class SilentOutput(Silent):
    def __init__(self):
        super().__init__(16)

    def encode(self, x):
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        ({"fan_in": 30}, BasisError, ("fan_in = 30", "24 of 24")),
        ({"basis_in": Silent(WIDTH)}, BasisError, ("no live parents",)),
        ({"dense_share": 0.01}, BasisError, ("on in more than 1%", "dense_share")),
        ({"start": SilentOutput()}, BasisError, ("never fires",)),
        ({"memory_gib": 1e-9}, TooLargeError, ("GiB", "memory_gib")),
        (
            {
                "basis_in": Rotation(torch.eye(WIDTH)),
                "x": -torch.rand(300, WIDTH),
                "counterfactual": Counterfactual(),
                "dense_share": 1.0,
            },
            BasisError,
            ("never negative",),
        ),
        ({"y": torch.zeros(300, 16)}, BasisError, ("never fires",)),
        ({"lam": -1.0}, BasisError, ("lam",)),
        ({"dense_share": 0.0}, BasisError, ("dense_share",)),
        ({"bypass": "linear"}, BasisError, ("'linear'", "none, dense, all")),
        ({"tune_inputs": InputTuning()}, BasisError, ("share one threshold", "Nonnegative", "SegmentSAE")),
    ],
)
def test_bad_input_is_refused(change, error, parts):
    with pytest.raises(error) as caught:
        _train(**change)
    for part in parts:
        assert part in str(caught.value)


def test_segments_that_meet_are_refused():
    segment, x, y, _, start = planted(100)
    following = Segment("out", "end", lambda x: x, 16, 16)
    with pytest.raises(BasisError, match=r"segments meet at out"):
        recipe(inputs=Nonnegative(WIDTH), outputs=start).fit([segment, following], {"in": x, "out": y, "end": y})


def test_a_dictionary_of_another_segment_is_refused(fitted):
    segment, x, y, _, bases = fitted
    other = Segment("elsewhere", "out", lambda x: x, WIDTH, 16)
    with pytest.raises(BasisError, match=r"made for in -> out"):
        bases["out"].check(other)
    for outputs in (bases["out"], {"out": bases["out"]}):
        with pytest.raises(BasisError, match=r"made for in -> out"):
            recipe(inputs=Nonnegative(WIDTH), outputs=outputs).fit([other], {"elsewhere": x, "out": y})
    with pytest.raises(BasisError, match=r"basis for out takes vectors of width 9, the hook point has width 16"):
        recipe().train(segment, Nonnegative(WIDTH), Rotation(torch.eye(9)), x, y)

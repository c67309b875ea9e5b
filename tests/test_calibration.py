"""Thresholds set on firing: worked by hand, against the connector's own values, and through GramLasso."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gatelens as gl
from gatelens.codes.csr import to_csr
from gatelens.errors import SolverError
from gatelens.solvers import calibrated, fitted_where_on, thresholded
from gatelens.solvers.calibration import MIN_ROWS


def blurred(rows: int = 4000, seed: int = 0):
    """Outputs that are the part over .6 of a sum of three inputs, and noise: squared error alone fires them too often."""
    g = torch.Generator().manual_seed(seed)
    f_in = torch.rand(rows, 12, generator=g) * (torch.rand(rows, 12, generator=g) < 0.3)
    z = f_in @ torch.rand(12, 5, generator=g) + 0.2 * torch.randn(rows, 5, generator=g)
    return f_in, torch.where(z > 0.9, z, 0.0)


def test_by_hand():
    """Twenty rows with z = 0, 1 .. 19; the feature is on in the last ten with y = 2 z + 3, so the threshold is z = 9.5."""
    z = torch.arange(20.0)[:, None]
    y = torch.where(z > 9, 2 * z + 3, 0.0)
    found = calibrated(gl.Connector.from_dense(torch.ones(1, 1), torch.zeros(1)), z, y)
    assert found.weight.to_dense().item() == pytest.approx(2)
    assert found.bias.item() == pytest.approx(3)
    assert found.threshold is not None
    assert found.threshold.item() == pytest.approx(2 * 9.5 + 3)
    torch.testing.assert_close(found(z), y)


def test_a_line_is_not_fitted_to_fewer_rows_than_it_takes():
    z = torch.arange(20.0)[:, None]
    y = torch.where(z > 19 - (MIN_ROWS - 1), 2 * z + 3, 0.0)
    found = calibrated(gl.Connector.from_dense(torch.ones(1, 1), torch.zeros(1)), z, y)
    assert found.weight.to_dense().item() == 1
    assert ((found(z) > 0) == (y > 0)).all()


def test_every_output_is_on_as_often_as_its_feature_and_its_line_is_that_of_least_squares():
    f_in, f_out = blurred()
    plain, set_on_firing = (
        gl.GramLasso(mean_wires=4).fit(f_in, f_out),
        gl.GramLasso(mean_wires=4, calibrate=True).fit(f_in, f_out),
    )
    true, before, after = ((f > 0).sum(0) for f in (f_out, plain(f_in), set_on_firing(f_in)))
    assert (before > 1.1 * true).all()
    assert torch.equal(after, true)
    value = set_on_firing(f_in)
    left = torch.where(value > 0, f_out - value, 0.0)
    assert left.mean(0).abs().max() < 1e-4  # residuals over the threshold: mean zero, at right angles to the value
    assert (left * value).mean(0).abs().max() < 1e-4
    assert torch.equal(plain.weight.col_indices(), set_on_firing.weight.col_indices())
    assert torch.equal(plain.weight.values().sign(), set_on_firing.weight.values().sign())
    sparse = calibrated(plain, to_csr(f_in), to_csr(f_out))
    np.testing.assert_allclose(sparse.weight.values(), set_on_firing.weight.values(), rtol=1e-5)


def test_the_threshold_of_least_error_is_that_of_a_search_over_all():
    f_in, f_out = blurred(300)
    plain = gl.GramLasso(mean_wires=4).fit(f_in, f_out)
    found = calibrated(plain, f_in, f_out, on="error")
    z = plain.pre(f_in).double().numpy()
    for out in range(f_out.shape[1]):
        y, least = f_out[:, out].double().numpy(), np.inf
        for cut in [0.0, *np.sort(z[:, out])[:-MIN_ROWS]]:
            on = z[:, out] > max(cut, 0)
            line = np.poly1d(np.polyfit(z[on, out], y[on], 1))
            least = min(least, np.square(np.where(on, line(z[:, out]), 0) - y).sum())
        error = (found(f_in)[:, out] - f_out[:, out]).double().square().sum()
        assert float(error) == pytest.approx(least, rel=1e-4)
        for other in (plain, gl.GramLasso(mean_wires=4, calibrate="firing").fit(f_in, f_out)):
            assert error <= (1 + 1e-6) * (other(f_in)[:, out] - f_out[:, out]).double().square().sum()


def test_weights_over_the_rows_where_an_output_is_on():
    """Weights 5 % off turn the true features on in some wrong rows; in turn with the threshold most outputs find back."""
    g = torch.Generator().manual_seed(0)
    f_in = torch.rand(3000, 12, generator=g) * (torch.rand(3000, 12, generator=g) < 0.3)
    true = torch.rand(5, 12, generator=g) * (torch.rand(5, 12, generator=g) < 0.5)
    z = f_in @ true.T + 0.3
    f_out = torch.where(z > 0.8, z, 0.0)
    off = [(row.nonzero().squeeze(1), row[row > 0]) for row in true]
    off = [(parents, weights * torch.linspace(0.95, 1.05, len(weights))) for parents, weights in off]
    first = calibrated(gl.Connector.from_rows(off, torch.full((5,), 0.3), 12), f_in, f_out, on="error")
    found = fitted_where_on(first, f_in, f_out, rounds=8)
    before, after = ((connector(f_in) - f_out).square().sum(0) for connector in (first, found))
    assert (after <= before).all()
    back = after < 1e-3
    assert back.sum() == 3
    torch.testing.assert_close(found.weight.to_dense()[back], true[back], atol=1e-3, rtol=1e-2)
    sparse = fitted_where_on(first, to_csr(f_in), to_csr(f_out), rounds=8)
    torch.testing.assert_close(sparse(f_in), found(f_in), atol=1e-4, rtol=1e-4)


def test_an_output_that_is_hardly_ever_on_keeps_its_weights():
    f_in, f_out = blurred()
    f_out[30:, 2] = 0.0
    weight = torch.rand(5, 12, generator=torch.Generator().manual_seed(1))
    first = calibrated(gl.Connector.from_dense(weight, torch.zeros(5)), f_in, f_out)
    found = fitted_where_on(first, f_in, f_out, rounds=1)
    few, many = first.parents(2), first.parents(1)
    assert torch.equal(few[0].sort().values, found.parents(2)[0].sort().values)
    ratio = found.weight.to_dense()[2, few[0]] / few[1]
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio))
    assert not torch.allclose(found.weight.to_dense()[1, many[0]], many[1])


def test_an_output_that_is_on_where_its_inputs_are_off_keeps_what_it_has():
    f_in, f_out = torch.zeros(100, 2), torch.zeros(100, 1)
    f_in[:40], f_out[40:] = 1.0, 2.0
    first = gl.Connector.from_dense(-torch.ones(1, 2), torch.ones(1))
    assert torch.equal(fitted_where_on(first, f_in, f_out)(f_in), first(f_in))


def test_without_a_line_values_stay_and_the_threshold_is_that_of_least_error():
    f_in, f_out = blurred(300)
    plain = gl.GramLasso(mean_wires=4).fit(f_in, f_out)
    found = calibrated(plain, f_in, f_out, on="error", line=False)
    assert torch.equal(found.weight.values(), plain.weight.values())
    z = plain.pre(f_in)
    for out, threshold in enumerate(found.threshold):
        error = [
            torch.where(z[:, out] > cut, z[:, out], 0.0).sub(f_out[:, out]).square().sum()
            for cut in (threshold, 0, *z[:, out].relu())
        ]
        assert error[0] <= min(error) * (1 + 1e-6)


def test_a_threshold_alone_leaves_values_as_they_are():
    f = torch.rand(1000, 4, generator=torch.Generator().manual_seed(0))
    rates = torch.tensor([0.1, 0.5, 0.0, 1.0])
    for connector in (gl.Connector.from_dense(w, torch.zeros(4)) for w in (torch.eye(4), torch.eye(4) + 0.01)):
        found = thresholded(connector, f, rates)
        torch.testing.assert_close((found(f) != 0).float().mean(0), rates, atol=1.1e-3, rtol=0)
        torch.testing.assert_close(found(f), torch.where(found(f) != 0, connector(f), 0.0))
    assert torch.equal(thresholded(connector, to_csr(f), rates)(f) != 0, found(f) != 0)


def test_an_output_without_wires_or_firings_stays_silent():
    f_in, f_out = blurred()
    f_out[:, 0] = 0.0
    connector = gl.Connector.from_dense(torch.zeros(5, 12), torch.full((5,), 0.3))
    for on in ("firing", "error"):
        silent = calibrated(connector, f_in, f_out, on=on)(f_in)[:, 0]
        assert (silent == 0).all()


def test_what_it_refuses():
    f_in, f_out = blurred(100)
    connector = gl.GramLasso(mean_wires=2).fit(f_in, f_out)
    with pytest.raises(SolverError, match="maps 12 features to 5"):
        calibrated(connector, f_in[:, :3], f_out)
    with pytest.raises(SolverError, match="over the same rows"):
        calibrated(connector, f_in[:50], f_out)
    linear = gl.GramLasso(mean_wires=2, signed=True, calibrate=True).fit(f_in - 0.5, f_out - 0.5)
    assert linear.threshold is None
    with pytest.raises(SolverError, match="activation relu"):
        calibrated(linear, f_in, f_out)


def test_a_gate_prints_its_threshold():
    gate = gl.Gate(3, gl.GateKind.COPY, (1,), (0.5,), -0.1, threshold=0.25)
    assert gate.equation() == "OF_3 = JumpReLU(0.5·IF_1 - 0.1; over 0.25)"

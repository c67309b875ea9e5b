"""What static wires can carry at most: a bilinear map worked by hand, a linear one, and shares against edits that are foreseen."""

from __future__ import annotations

import pytest
import torch

from gatelens.basis.linear import Rotation
from gatelens.evaluation.static_wires import static_wires
from gatelens.segments import Segment

#: squared lengths of the directions in which input 0 moves y, one for each context
SQUARES = torch.tensor([4.0, 2.0, 1.0, 1.0])
EYE = Rotation(torch.eye(5))


def bilinear() -> tuple[Segment, torch.Tensor]:
    """y = f_0 sum_j f_j b_j with |b_j|^2 as above, at right angles; input 0 always on, one of the four contexts in each row."""
    directions = torch.diag(SQUARES.sqrt())
    segment = Segment("in", "out", lambda x: x[:, :1] * (x[:, 1:] @ directions), 5, 4)
    x = torch.zeros(800, 5)
    x[:, 0] = 1.0
    x[torch.arange(800), 1 + torch.arange(800) % 4] = 1.0
    return segment, x


def test_a_bilinear_map_by_hand():
    """Removing input 0 costs f_j b_j: 4, 2, 1, 1 of 8 over the four contexts, as often each; a context's own removal the same one b_j."""
    segment, x = bilinear()
    found = static_wires(segment, EYE, x, inputs=400, contexts=800)
    assert found is not None
    effects = found.removals
    assert effects.inputs.tolist() == [0, 1, 2, 3, 4]
    of_0 = effects.within[0] / effects.total[0, 0]
    assert torch.allclose(of_0[:6], torch.tensor([0, 4, 6, 7, 8, 8]).double() / 8, atol=1e-9)
    for context, square in enumerate(SQUARES.tolist(), 1):
        assert effects.within[context, :3].tolist() == pytest.approx([0, square, square])
    weight = effects.weight
    energy = torch.tensor([2.0, *SQUARES.tolist()], dtype=torch.double)  # of 0: the mean of the four
    share = lambda r: float(weight[0] * 2.0 * of_0[r] + (weight[1:] * energy[1:]).sum()) / float(weight @ energy)  # noqa: E731
    for r in (1, 2, 3, 4):
        assert effects.at_most(r) == pytest.approx(share(r))
        assert effects.found(r) == pytest.approx(share(r), abs=0.03)
    assert effects.at_most(0) == 0
    needed = effects.needed((share(1) + share(2)) / 2)
    assert (needed, effects.needed(share(1))) == (2, 1)
    # input 0 with two wires, the others with none: only 0's own share is left
    own = effects.at_most(torch.tensor([2, 0, 0, 0, 0]))
    assert own == pytest.approx(float(weight[0] * 2.0 * 6 / 8) / float(weight @ energy))


def test_one_wire_is_enough_for_a_linear_map():
    matrix = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    x = torch.rand(300, 5, generator=torch.Generator().manual_seed(1))
    x[x < 0.5] = 0
    found = static_wires(Segment("in", "out", lambda x: x @ matrix, 5, 3), EYE, x)
    assert found is not None
    assert found.additions is not None
    for effects in (found.removals, found.additions):
        assert effects.at_most(1) == pytest.approx(1)
        assert effects.found(1) == pytest.approx(1)
        assert effects.needed(0.9) == 1
    told = found.to_dict()
    assert told["removals_needed"] == {"0.5": 1, "0.6": 1, "0.8": 1, "0.9": 1}
    assert "an R2 of removals needs at least: 0.5: 1, 0.6: 1" in repr(found)


def test_features_that_are_always_on_cannot_be_added():
    matrix = torch.eye(5)
    found = static_wires(Segment("in", "out", lambda x: x @ matrix, 5, 5), EYE, torch.rand(50, 5) + 0.1)
    assert found is not None
    assert found.additions is None
    assert static_wires(Segment("in", "out", lambda x: x @ matrix, 5, 5), EYE, torch.zeros(50, 5)) is None

"""Figures: whole SVG, text as text, the page's own colour."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

from gatelens.errors import DataError
from gatelens.evaluation import EdgeCurve
from gatelens.invariants import SummaryCurve
from gatelens.views.curves import curve_figure, edge_figure, matched_matrix_figure, summary_figure


def test_curves_are_inline_svg_with_text():
    svg = curve_figure(
        {"active subspace": ([2, 4, 8], [0.3, 0.9, 0.97]), "random": ([2, 4, 8], [0.1, None, 0.2])},
        "dimensions kept",
        "accuracy",
        nulls=["random"],
        levels={"clean": 0.977},
        log_x=True,
    )
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    text = "".join(root.itertext())
    for words in ("active subspace", "random (null)", "dimensions kept", "clean"):
        assert words in text
    assert "currentColor" in svg
    assert "#010203" not in svg
    assert "<?xml" not in svg
    assert svg == curve_figure(
        {"active subspace": ([2, 4, 8], [0.3, 0.9, 0.97]), "random": ([2, 4, 8], [0.1, None, 0.2])},
        "dimensions kept",
        "accuracy",
        nulls=["random"],
        levels={"clean": 0.977},
        log_x=True,
    )


def test_matched_matrix_is_a_picture_with_axes():
    svg = matched_matrix_figure(torch.eye(3).flip(0), [0, 1, 2], [2, 1, 0], title="other seed")
    assert "other seed" in "".join(ElementTree.fromstring(svg).itertext())


def test_figures_of_our_own_results():
    summary = SummaryCurve(
        "hook_post.0", "accuracy", 0.97, (2, 8), {"active subspace": (0.6, 0.97), "random directions": (0.1, 0.2)}
    )
    text = "".join(ElementTree.fromstring(summary_figure(summary)).itertext())
    assert "random directions (null)" in text
    assert "dimensions of hook_post.0 kept" in text
    edges = EdgeCurve("a -> b", "mean", (0, 5), (0.0, 0.9), (0.0, 0.3), (1.0, None))
    assert "wires kept (others: mean)" in "".join(ElementTree.fromstring(edge_figure(edges)).itertext())


def test_figures_refuse():
    with pytest.raises(DataError, match="at least one series"):
        curve_figure({}, "x", "y")
    with pytest.raises(DataError, match="2 x and 1 y"):
        curve_figure({"a": ([1, 2], [1.0])}, "x", "y")
    with pytest.raises(DataError, match="between -1 and 1"):
        matched_matrix_figure(torch.full((2, 2), 3.0))
    with pytest.raises(DataError, match="come in twos"):
        matched_matrix_figure(torch.eye(2), [0], [0, 1])

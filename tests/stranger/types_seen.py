"""Checked by pyright and mypy against the installed wheel: its types are seen, and a wrong one is an error."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
import gatelens as gl

circuit: gl.Circuit = gl.Circuit.load("circuit")
gate: gl.Gate = circuit.gate(3)
outputs: int = gate.out
solver = gl.GramLasso(mean_wires=8)
wrong: str = gate.out  # type: ignore[assignment]

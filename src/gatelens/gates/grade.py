"""Grades: how much speaks for a rule, apart from what kind it is."""

from __future__ import annotations

from enum import StrEnum

from .scores import Score


class Grade(StrEnum):
    """`verified`: it holds, and the model does what it says when its literals are set. `holds`: on held-out rows it agrees
    with the output, clearly more than its nulls do. `weak`: a rule that does less. `none`: no rule."""

    VERIFIED = "verified"
    HOLDS = "holds"
    WEAK = "weak"
    NONE = "none"

    def __str__(self) -> str:
        return self.value


#: least held-out MCC of a rule that holds, and by how much it must be over random parents and shuffled rows
HOLDS, OVER_NULLS = 0.5, 0.1


def judged(score: Score, nulls: dict[str, float | None], bar: float = HOLDS, against: str = "") -> tuple[Grade, str]:
    """The grade that held-out rows alone give a rule, and why it is no better.

    Args:
        nulls: what each null is called, and the MCC of the best rule of its kind; None where it could not be had.
        against: a pattern that clearly contradicts the rule, in words; "" where there is none.
    """
    if score.mcc is None:
        return Grade.WEAK, "it could not be judged: on held-out rows the rule or the output is never on"
    if score.mcc < bar:
        return Grade.WEAK, f"its held-out MCC is {score.mcc:.2f}, under {bar:g}"
    for name, null in nulls.items():
        if null is not None and score.mcc < null + OVER_NULLS:
            return Grade.WEAK, f"its held-out MCC is {score.mcc:.2f}, {name} reach {null:.2f}"
    return (Grade.WEAK, against) if against else (Grade.HOLDS, "")

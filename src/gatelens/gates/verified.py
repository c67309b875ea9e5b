"""Verified or not: whether the model does what a rule says when its literals are set, more than when others are."""

from __future__ import annotations

from collections.abc import Sequence

from .group_trials import GroupTrial
from .left_out import LeftOut
from .rule import Rule

#: rows of either kind, on and off, that a rule must have been tried on
LEAST = 6
#: off -> on happens at least so many times as often as under the control, and the control at most in this share
TIMES, CHANCE = 5.0, 0.1

_WORDS = {
    "on_on": "stays on where the rule stays open",
    "off_off": "stays off where the rule stays closed",
    "on_off": "goes off where the rule is closed",
    "off_on": "comes on where the rule is opened",
}


def obeys(rule: Rule, trial: GroupTrial) -> tuple[bool | None, str]:
    """Whether the model does what a rule says when its literals are set, and if not why; None where it could not be tried.

    All four rates are above a half, and each literal by itself clearly moves the output the way the rule says.
    """
    if min(trial.on_rows, trial.off_rows) < LEAST:
        return None, (
            f"not tried in the model: rule and output agree in {trial.on_rows} rows that are on and {trial.off_rows} that are off; "
            f"{LEAST} of each are needed"
        )
    for name, words in _WORDS.items():
        rate = trial.rates[name]
        needed = name in ("on_off", "off_on")
        if needed and not rate.tried:
            return None, "not tried in the model: no pattern of its literals changes the rule"
        if rate.tried and 2 * rate.made <= rate.tried:
            return False, f"with its literals set, the output {words} in {rate.made} of {rate.tried} cases"
    for literal, sway in zip(rule.literals, trial.sways, strict=True):
        if sway.low <= 0:
            return False, (
                f"{literal.words} does not clearly decide where the rule hangs on it: with it the output is as the rule says "
                f"{sway.mean:+.0%} more often"
            )
    return True, ""


def verified(rule: Rule, trial: GroupTrial, left_out: Sequence[LeftOut] = ()) -> tuple[bool | None, str]:
    """Whether a rule is verified, and if not why; None where it could not be tried.

    The model obeys it; switched on, the output follows at least five times as often as under the control, which moves it in at
    most a tenth; switched off, more often than the control's whole interval (by rows); and nothing that the rule leaves out
    overturns it.
    """
    done, why = obeys(rule, trial)
    return _beside_control(trial, left_out) if done else (done, why)


def _beside_control(trial: GroupTrial, left_out: Sequence[LeftOut]) -> tuple[bool, str]:
    on, chance = trial.rates["off_on"].share or 0.0, trial.control["off_on"].share or 0.0
    if chance > CHANCE or on < TIMES * chance:
        return False, f"unrelated features switch the output on as well: {chance:.0%} against {on:.0%}"
    off, control = trial.rates["on_off"].share or 0.0, trial.control["on_off"]
    if off <= control.interval[1]:
        return False, f"unrelated features switch the output off as well: {control.share or 0:.0%} against {off:.0%}"
    against = next((found for found in left_out if found.overturns), None)
    return (True, "") if against is None else (False, str(against))

"""Predictions of an ablation, written before its first trial, and what the trials say of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from infra.config import Section
from infra.errors import UserError

Figures = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Arm to seed to figure to its value."""


class Prediction(Section):
    """That a figure is lower in one arm than in another."""

    says: str
    """In words, with its source."""
    figure: str
    """A figure that trials report."""
    lower: str
    """The arm with the lower figure."""
    than: str
    """The arm with the higher one."""


def check(predictions: Sequence[Prediction], arms: Sequence[str], figures: Sequence[str]) -> None:
    """Raise UserError unless every prediction is of two arms and of a figure that trials report."""
    for number, prediction in enumerate(predictions):
        for key in ("lower", "than"):
            if (arm := getattr(prediction, key)) not in arms:
                raise UserError(
                    f"predictions.{number}.{key}: no arm {arm}; there are {', '.join(arms)}"
                )
        if prediction.figure not in figures:
            raise UserError(
                f"predictions.{number}.figure: {prediction.figure} is reported by no trial; "
                f"allowed are {', '.join(figures)}"
            )


def outcomes(
    predictions: Sequence[Prediction], figures: Figures, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """Return each prediction with what was found, seed by seed.

    ``differences`` has the higher arm's figure less the lower one's for each seed, None where one
    of them is missing; ``held`` counts those above 0 of ``seeds``.
    """
    found = []
    for prediction in predictions:
        lower, than = (
            {seed: figures.get(arm, {}).get(seed, {}).get(prediction.figure) for seed in seeds}
            for arm in (prediction.lower, prediction.than)
        )
        differences = {seed: _less(than[seed], lower[seed]) for seed in seeds}
        there = [value for value in differences.values() if value is not None]
        found.append(
            {
                **prediction.model_dump(),
                "differences": {str(seed): value for seed, value in differences.items()},
                "mean": float(np.mean(there)) if there else None,
                "held": sum(value > 0 for value in there),
                "seeds": len(differences),
            }
        )
    return found


def _less(higher: float | None, lower: float | None) -> float | None:
    return None if higher is None or lower is None else higher - lower


def lines(outcome: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the outcomes as lines for people."""
    told = []
    for each in outcome:
        mean = "no figure" if each["mean"] is None else f"{each['mean']:+.4g} on average"
        told.append(
            f"{each['held']} of {each['seeds']} seeds: {each['says']} "
            f"({each['figure']} of {each['than']} less that of {each['lower']}: {mean})"
        )
    return told

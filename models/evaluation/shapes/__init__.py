"""Checker of moving shapes: whether a video shows what its prompt says, from pixels alone."""

from models.evaluation.shapes.prompts import Expectation, ExpectedObject, parse
from models.evaluation.shapes.verdicts import Report, Verdict, check

__all__ = ["Expectation", "ExpectedObject", "Report", "Verdict", "check", "parse"]

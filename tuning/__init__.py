"""Sweeps and ablations with Ray Tune."""

from infra.interrupts import guard_imports

guard_imports()

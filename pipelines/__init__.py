"""Recipes that read top to bottom: the jobs of a published system, one after the other."""

from infra.interrupts import guard_imports

guard_imports()

"""Recipes that read top to bottom: the jobs of a published system, one after the other."""

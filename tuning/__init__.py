"""Sweeps with Ray Tune. None is built yet; see the README of this folder."""

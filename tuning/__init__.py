"""Sweeps and ablations with Ray Tune."""

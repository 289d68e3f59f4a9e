"""Autoregressive generators: what they share (cache, sampling), and one package for each."""

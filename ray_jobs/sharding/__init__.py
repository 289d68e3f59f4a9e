"""Shared stages of `frames` and `tokenize`: planning, decoding, encoding, and writing shards."""

"""Measures of tokenizers and videos that need no pretrained weights."""

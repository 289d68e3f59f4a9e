"""Measuring films: which ones a job is given, what is measured of each, and the table of it.

`sources` lists the films, `measure` measures one of them, and `measures_table` holds the rows.
"""

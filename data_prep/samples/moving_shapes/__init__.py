"""Moving shapes: a corpus of films whose truth is known."""

from data_prep.samples.moving_shapes.corpus import (
    MANIFEST,
    CorpusConfig,
    Film,
    FilmConfig,
    film,
    write,
    write_film,
)

__all__ = ["MANIFEST", "CorpusConfig", "Film", "FilmConfig", "film", "write", "write_film"]

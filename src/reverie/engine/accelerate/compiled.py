"""The transformer, compiled in pieces: `reverie.models.pieces`, by the name that the engine knows it by."""

from reverie.models.pieces import (
    PIECES,
    allow_shapes,
    check_compiler,
    compile_pieces,
    num_compiled,
    restore_pieces,
)

__all__ = ["PIECES", "allow_shapes", "check_compiler", "compile_pieces", "num_compiled", "restore_pieces"]

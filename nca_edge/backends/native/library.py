"""The compiled step: found beside this file where the installation brought it, and asked what this core can do."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

from nca_edge.backends.native.layout import LAYOUT
from nca_edge.errors import MissingStepError

FILE = Path(__file__).with_name("step.so")
"""``hatch_build.py`` compiles it when the wheel or the editable installation is made, where there is a compiler."""


@cache
def find() -> tuple[ctypes.CDLL | None, str]:
    """The library and the name of the instructions that it will use here; without one, why there is none."""
    if not FILE.is_file():
        return None, "this installation brings no compiled step, for want of a C compiler when it was made"
    try:
        library = ctypes.CDLL(str(FILE))
    except OSError as error:
        return None, f"the compiled step cannot be loaded ({error})"
    if not hasattr(library, "nca_layout") or library.nca_layout() != LAYOUT:
        return None, "the compiled step is of another version; install nca-edge again"
    library.nca_choose.restype, library.nca_memory.restype = ctypes.c_char_p, ctypes.c_size_t
    name = library.nca_choose(0)
    if name is None:
        return None, "this CPU lacks AVX2"
    return library, name.decode()


def missing() -> str | None:
    """Why it does not run here; None: it does."""
    library, why = find()
    return why if library is None else None


def instructions() -> str | None:
    """What it uses here, such as ``neon-dotprod``; None: it does not run here."""
    library, name = find()
    return name if library is not None else None


def load() -> ctypes.CDLL:
    """The library.

    Raises
    ------
    MissingStepError
        It does not run here.
    """
    library, why = find()
    if library is None:
        raise MissingStepError(why)
    return library

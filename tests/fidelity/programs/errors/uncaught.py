"""An exception that is not caught prints its traceback, with notes, causes and groups, and status 1."""

import numpy as np


def inner(a: np.ndarray) -> np.ndarray:
    return a.reshape(7, 11)


def outer() -> None:
    a = np.ones((1000, 500))
    try:
        inner(a)
    except ValueError as error:
        error.add_note(f"while reshaping {a.shape}")
        raise ExceptionGroup("several", [error, IndexError("another")]) from error


outer()

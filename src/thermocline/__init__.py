"""NumPy arrays larger than DRAM: cold pages sink, tier by tier, in lieu of being discarded.

Importing this package imports neither numpy nor any part of the machinery: names are looked up on first use
(PEP 562), because `thermocline run` loads it into programs before their first statement.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from thermocline.errors import (
        ClosedError,
        OutOfMemory,
        SpecError,
        StoreError,
        ThermoclineError,
        UnsupportedError,
    )
    from thermocline.memory import Memory
    from thermocline.sizes import format_seconds, format_size, parse_size
    from thermocline.spec import Compressed, Dram, File, Numa, parse_spec

__version__ = "0.1.0"

_HOMES = {
    "ClosedError": "errors",
    "Compressed": "spec",
    "Dram": "spec",
    "File": "spec",
    "Memory": "memory",
    "Numa": "spec",
    "OutOfMemory": "errors",
    "SpecError": "errors",
    "StoreError": "errors",
    "ThermoclineError": "errors",
    "UnsupportedError": "errors",
    "format_seconds": "sizes",
    "format_size": "sizes",
    "parse_size": "sizes",
    "parse_spec": "spec",
}

__all__ = [
    "ClosedError",
    "Compressed",
    "Dram",
    "File",
    "Memory",
    "Numa",
    "OutOfMemory",
    "SpecError",
    "StoreError",
    "ThermoclineError",
    "UnsupportedError",
    "__version__",
    "format_seconds",
    "format_size",
    "parse_size",
    "parse_spec",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

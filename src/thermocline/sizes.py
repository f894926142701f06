"""Sizes and times, as people write them and read them.

A size is a whole number of bytes. `KiB`, `MiB`, `GiB`, `TiB`, `PiB` are powers of 1024, `kB`, `MB`, `GB`,
`TB`, `PB` powers of 1000 (IEC 80000-13); the bare letters `K`, `M`, `G`, `T`, `P` and Kubernetes' `Ki`, `Mi`,
... are powers of 1024, as memory is usually meant. Case does not matter.
"""

import operator
import re
from typing import SupportsIndex

from thermocline.errors import SpecError
from thermocline.spelling import near

_LETTERS = "KMGTP"
_BINARY = [f"{letter}iB" for letter in _LETTERS]
_DECIMAL = ["kB", *(f"{letter}B" for letter in _LETTERS[1:])]

_UNITS: dict[str, int] = {"": 1, "b": 1}
for _power, _letter in enumerate(_LETTERS.lower(), start=1):
    _UNITS |= {_letter: 1024**_power, f"{_letter}i": 1024**_power, f"{_letter}ib": 1024**_power}
    _UNITS[f"{_letter}b"] = 1000**_power

_SPELLING = {unit.lower(): unit for unit in ["B", *_BINARY, *_DECIMAL]}
_SIZE = re.compile(r"\s*(-?[0-9][0-9_]*(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def parse_size(size: str | SupportsIndex) -> int:
    """The number of bytes that `size` names.

    Parameters
    ----------
    size
        Text such as ``"2GiB"``, ``"1.5 GiB"``, ``"512MB"`` or ``"65536"``, or a whole number of bytes.

    Raises
    ------
    SpecError
        The text is no size, its unit is unknown, or it is negative or not a whole number of bytes.

    Examples
    --------
    >>> parse_size("64KiB"), parse_size("1.5k"), parse_size("1MB"), parse_size(4096)
    (65536, 1536, 1000000, 4096)
    """
    if not isinstance(size, str):
        return _whole(size)
    match = _SIZE.fullmatch(size)
    if match is None:
        raise SpecError(f'"{size}" is not a size; write a number and a unit, such as 512MiB or 2GiB')
    number, unit = match.groups()
    factor = _UNITS.get(unit.lower())
    if factor is None:
        units = near(unit, _SPELLING, most=5)
        units.sort(key=lambda known: sorted(known) != sorted(unit.lower()))  # a swap of letters before the rest
        meant = f"{number}{_SPELLING[units[0]]}" if units else "KiB, MiB, GiB, TiB, kB, MB, GB, TB or plain bytes"
        raise SpecError(f'the unit "{unit}" of the size "{size}" is unknown; write {meant}')
    whole, _, decimals = number.replace("_", "").partition(".")
    count, rest = divmod(int(whole + decimals) * factor, int(10 ** len(decimals)))
    if count < 0:
        raise SpecError(f'the size "{size}" is negative; write it without the minus sign')
    if rest:
        raise SpecError(f'the size "{size}" is not a whole number of bytes; write {count} for the next below it')
    return count


def _whole(size: SupportsIndex) -> int:
    # Asked, not tried: a TypeError that comes meanwhile need not be ours.
    count = operator.index(size) if hasattr(size, "__index__") else -1
    if count < 0 or isinstance(size, bool):
        raise SpecError(f'{size!r} is not a size; write a whole number of bytes, or text such as "2GiB"')
    return count


def format_size(size: int) -> str:
    """`size` bytes with one decimal at most, in the largest binary unit that leaves 1 or more.

    Examples
    --------
    >>> format_size(1536 * 1024**2), format_size(65536), format_size(17)
    ('1.5 GiB', '64 KiB', '17 B')
    """
    value, unit = float(size), "B"
    for larger in _BINARY:
        if round(value, 1) < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


_TIME = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)\s*")
_TIME_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def parse_seconds(time: str | float) -> float:
    """The seconds that `time` names: text such as ``"2ms"``, or a number of seconds.

    Raises
    ------
    SpecError
        It is no time, has no unit, or is negative or not finite.

    Examples
    --------
    >>> parse_seconds("2ms"), parse_seconds("1.5 s"), parse_seconds(0.25)
    (0.002, 1.5, 0.25)
    """
    if not isinstance(time, str):
        if isinstance(time, bool) or not 0 <= time < float("inf"):
            raise SpecError(f'{time!r} is not a time; write seconds from 0 on, or text such as "2ms"')
        return float(time)
    match = _TIME.fullmatch(time)
    if match is None or match[2] not in _TIME_UNITS:
        raise SpecError(f'"{time}" is not a time; write a number and a unit, such as 2ms (ns, us, ms or s)')
    return float(match[1]) * _TIME_UNITS[match[2]]


def format_seconds(seconds: float) -> str:
    """A time in seconds with three significant digits, in ns, us, ms or s.

    Examples
    --------
    >>> format_seconds(35e-6), format_seconds(0.00125), format_seconds(90)
    ('35 us', '1.25 ms', '90 s')
    """
    value, unit = seconds * 1e9, "ns"
    for larger in ("us", "ms", "s"):
        if float(f"{value:.3g}") < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"

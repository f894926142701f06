"""Structures that C and Python share, as each has them: the fields, and the size of the whole."""

import ctypes

from thermocline.native import library

Fields = list[tuple[str, int, int]]


class Field(ctypes.Structure):
    """``struct tc_field`` of ``native/thermocline.h``."""

    _fields_ = (("name", ctypes.c_char_p), ("offset", ctypes.c_size_t), ("size", ctypes.c_size_t))


def in_c(table: str) -> Fields:
    """A table of the native library: each field's name, offset and size, and then no name and the size of the whole."""
    field = Field.in_dll(library(), table)
    found: Fields = []
    while field.name:
        found.append((field.name.decode(), field.offset, field.size))
        field = Field.from_address(ctypes.addressof(field) + ctypes.sizeof(Field))
    return [*found, ("", field.offset, field.size)]


def in_python(structure: type[ctypes.Structure]) -> Fields:
    """The same of a structure of ctypes, whose members may be structures."""
    return [*_members(structure, "", 0), ("", ctypes.sizeof(structure), 0)]


def _members(structure: type[ctypes.Structure], prefix: str, base: int) -> Fields:
    found: Fields = []
    for name, kind, *_ in structure._fields_:
        member = getattr(structure, name)
        if issubclass(kind, ctypes.Structure):
            found += _members(kind, f"{prefix}{name}.", base + member.offset)
        else:
            found.append((f"{prefix}{name}", base + member.offset, member.size))
    return found

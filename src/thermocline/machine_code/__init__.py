"""Functions in machine code, written as LLVM's text and loaded without a linker.

Python cannot do everything: what is called where Python must not be entered, or what must not hold the GIL, is
written in a file of ``.ll``. `MachineCode` finds its code, compiled beforehand or now, and maps it. For that the text
keeps to three rules:

- A function uses nothing but its arguments: the addresses of all that it calls are among them. So there is nothing to
  link or to relocate.
- A function is in a section of its own, ``.text.NAME``.
- It is written for machines of 64 bits.

What was compiled beforehand is in a module ``plain`` beside the text. After a change to the text it is written anew
by ``python -m thermocline.machine_code MODULE:NAME``, where NAME is the `MachineCode` that MODULE holds.
"""

from thermocline.machine_code.executable import MachineCode

__all__ = ["MachineCode"]

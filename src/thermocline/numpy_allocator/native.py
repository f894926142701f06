"""The filter as machine code: ``filter.ll`` and what was made of it beforehand."""

from pathlib import Path

from thermocline.machine_code import MachineCode
from thermocline.numpy_allocator import plain

FILTER = MachineCode(
    name="filter",
    purpose="tiering NumPy's arrays",
    source=Path(__file__).with_name("filter.ll"),
    functions=("malloc", "calloc", "realloc", "free", "ask", "release", "enter", "collect"),
    plain=plain.MACHINES,
    choice="THERMOCLINE_PLAIN_ALLOCATOR",
)

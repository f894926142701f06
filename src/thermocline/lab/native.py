"""The probe as machine code: ``probe.ll`` and what was made of it beforehand."""

from pathlib import Path

from thermocline.lab import plain
from thermocline.machine_code import MachineCode

PROBE = MachineCode(
    name="probe",
    purpose="probing pages",
    source=Path(__file__).with_name("probe.ll"),
    functions=("probe",),
    plain=plain.MACHINES,
    choice="THERMOCLINE_PLAIN_PROBE",
)

"""A user without privileges, whose userfaultfd serves user-mode faults only."""

import os
import shutil
import subprocess

import pytest

NOBODY = 65534
#: The one capability left is to read the interpreter and the package, wherever they are.
ORDINARY = [
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"),
]


def _impossible() -> str:
    if (
        shutil.which("setpriv") is None
        or subprocess.run([*ORDINARY, "true"], check=False, capture_output=True).returncode
    ):
        return "no setpriv(1) here, or not the right to it"
    if os.path.exists("/dev/userfaultfd") and os.stat("/dev/userfaultfd").st_mode & 6 == 6:
        return "/dev/userfaultfd is open to everybody"
    with open("/proc/sys/vm/unprivileged_userfaultfd") as setting:
        return "vm.unprivileged_userfaultfd is 1" if setting.read().strip() != "0" else ""


#: Why there is none such here, if so.
impossible = _impossible()
as_ordinary_user = pytest.mark.skipif(bool(impossible), reason=impossible)

"""The program runs another in its place, which makes arrays as well: os.execv, and os.execvpe with its own environment.

Not tiered: what replaces the program is not (docs/limits.md).
"""

import os
import sys

import numpy as np

step = int(os.environ.get("STEP", "0"))
a = np.full(500_000, step)
print(step, int((a + 1).sum()), sys.argv[1:], [k for k in os.environ if "THERMOCLINE" in k], flush=True)
if step == 0:
    try:
        os.execv("/no/such/program", ["x"])
    except OSError as error:
        print(error, flush=True)
    os.environ["STEP"] = "1"
    os.execv(sys.executable, [sys.executable, __file__, "again"])
if step == 1:
    os.execvpe("sh", ["sh", "-c", 'exec "$0" "$@"', sys.executable, __file__, "more"], os.environ | {"STEP": "2"})
sys.exit(6)

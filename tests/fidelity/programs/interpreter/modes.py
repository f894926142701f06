"""python -O, -X dev, -u, -W error, -X importtime and -c, as subprocess of an array program and for itself."""

import subprocess
import sys

import numpy as np

print(float(np.ones(500_000).sum()))
code = "import numpy as np; assert np.ones(300_000).sum() == 3; print(__debug__, np.ones(300_000).sum())"
for options in (["-O"], ["-X", "dev", "-O"], ["-u", "-W", "error", "-O"], ["-I", "-O"], []):
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True)
    print(options, done.returncode, done.stdout, done.stderr)

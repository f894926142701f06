"""Started with an empty environment: what is in it, the encoding of streams, a home directory, a temporary file.

Started by: env -i
"""

import os
import sys
import tempfile

import numpy as np

a = np.arange(600_000)
print(sorted(os.environ), sys.stdout.encoding, int((a + 1).sum()), os.path.expanduser("~")[:1], tempfile.gettempdir())
if not os.fork():
    print(sorted(os.environ), int((a - 1).sum()), flush=True)
    os._exit(0)
print(os.wait()[1])

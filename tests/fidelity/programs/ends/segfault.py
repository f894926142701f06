"""A crash of its own: faulthandler tells of the program's stack, and the status is SIGSEGV's."""

import ctypes
import faulthandler
import resource

import numpy as np

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
faulthandler.enable(all_threads=False)
a = np.arange(800_000)
print(int((a * 2).sum()), flush=True)
ctypes.string_at(16)

"""os.abort while arrays are in the lower tiers: the status is the signal's, and the core stays away."""

import os
import resource

import numpy as np

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
a = np.ones(700_000)
print(float((a + a).sum()), flush=True)
os.abort()

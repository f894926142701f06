"""CPU timers count the program's own work and their signals end it: ITIMER_VIRTUAL, ITIMER_PROF, RLIMIT_CPU."""

import resource
import signal

import numpy as np

hits = []
signal.signal(signal.SIGVTALRM, lambda *_: hits.append("virtual"))
signal.signal(signal.SIGPROF, lambda *_: hits.append("profile"))
signal.setitimer(signal.ITIMER_VIRTUAL, 0.02)
signal.setitimer(signal.ITIMER_PROF, 0.02)
large = np.ones(500_000)
a = large[:50_000].copy()
while len(hits) < 2:
    a = np.sqrt(a + 1)
print(sorted(hits), flush=True)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_CPU, (1, 3))
while True:
    a = np.sqrt(a + 1)

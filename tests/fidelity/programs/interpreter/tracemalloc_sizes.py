"""tracemalloc counts arrays with their sizes and lines, and forgets them when they are freed."""

import tracemalloc

import numpy as np

np.ones(300_000).sum()
tracemalloc.start()
before = tracemalloc.get_traced_memory()[0]
a = np.ones(300_000)
b = np.zeros(400_000)
c = np.arange(100_000)
c.resize(300_000, refcheck=False)
now, peak = tracemalloc.get_traced_memory()
print(abs(now - before - 8_000_000) < 20_000, peak >= now)
statistics = tracemalloc.take_snapshot().statistics("lineno")
print([(s.traceback[0].lineno, s.size // 1000, s.count > 0) for s in statistics if s.size > 100_000])
del a, b, c
print(tracemalloc.get_traced_memory()[0] - before < 50_000)
tracemalloc.stop()

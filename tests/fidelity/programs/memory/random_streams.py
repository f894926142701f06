"""Random generators fill large arrays with the same numbers: Generator, RandomState, out=, permutations."""

import numpy as np

for bits in (np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64):
    rng = np.random.Generator(bits(5))
    out = np.empty(200_000)
    rng.standard_normal(out=out)
    print(bits.__name__, out.sum().round(6), rng.integers(0, 1 << 40, 100_000).sum(), rng.random(100_000, "f4")[-1])
rng = np.random.default_rng(1)
print(
    rng.permutation(100_000)[:3],
    rng.choice(100_000, 50_000, replace=False).sum(),
    rng.multinomial(10_000, np.full(50, 0.02))[:4],
)
print(np.random.RandomState(7).rand(150_000).sum().round(6), len(rng.bytes(1_000_000)))
rng.shuffle(out)
print(out[:2].round(6))

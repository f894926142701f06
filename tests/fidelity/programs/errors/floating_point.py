"""Floating-point warnings and errors of large arrays: np.errstate, np.seterrcall, warnings."""

import warnings

import numpy as np

a = np.linspace(-1, 1, 500_001)
a[250_000] = 0
for kind in ("ignore", "warn", "raise", "call", "print"):
    np.seterrcall(lambda what, flag: print("call", what, flag))
    with np.errstate(all=kind), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            print(kind, np.isnan(np.sqrt(a)).sum(), np.isinf(1 / a).sum())
        except FloatingPointError as error:
            print(error)
    print([str(warning.message) for warning in caught])
np.log(a)
print(float(np.nansum(a)))

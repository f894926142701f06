"""scikit-learn: the first singular vectors of a matrix of measurements.

python svd.py BYTES
"""

import sys

import numpy as np
from sklearn.decomposition import TruncatedSVD
from stage import Stage

COLUMNS, RANK = 1024, 12
#: What it takes at the worst moment, of the variances, over the matrix.
PEAK = 2.35
ROWS_AT_ONCE = 4096


def main() -> None:
    stage = Stage()
    rows = int(int(sys.argv[1]) / (4 * COLUMNS * PEAK))
    random = np.random.default_rng(0)
    measured = np.empty((rows, COLUMNS), "f4")
    sources = random.normal(size=(RANK, COLUMNS)).astype("f4")
    noise = random.normal(size=(ROWS_AT_ONCE, COLUMNS)).astype("f4")
    for start in range(0, rows, ROWS_AT_ONCE):
        part = measured[start : start + ROWS_AT_ONCE]
        np.matmul(random.normal(size=(len(part), RANK)).astype("f4"), sources, out=part)
        part += np.roll(noise[: len(part)], start // ROWS_AT_ONCE, axis=1)
        # As a converter of 12 bits gives them.
        np.rint(np.multiply(part, 64, out=part), out=part)
    model = TruncatedSVD(RANK, n_iter=2, random_state=0)
    reduced = model.fit_transform(measured)
    stage.end(*model.singular_values_, *model.explained_variance_ratio_, float(np.abs(reduced).sum(dtype="f8")))


if __name__ == "__main__":
    main()

"""scikit-learn with every joblib backend: forests, grid search, incremental models, memory-mapped inputs of workers.

Needs: sklearn, joblib
"""

import joblib
import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import cross_val_score


def column_sum(array: np.ndarray, k: int) -> tuple[str, float]:
    return type(array).__name__, float(array[:, k].sum())


if __name__ == "__main__":
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6_000, 20))
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)
    for backend in ("sequential", "threading", "loky", "multiprocessing"):
        with joblib.parallel_config(backend, n_jobs=2):
            print(backend, joblib.Parallel()(joblib.delayed(column_sum)(x, k) for k in range(3)))
            scores = cross_val_score(LogisticRegression(), x, y, cv=2)
            forest = RandomForestClassifier(3, random_state=0).fit(x, y)
            print(scores.round(6), round(forest.score(x, y), 6))
    print(PCA(3, random_state=0).fit(x).explained_variance_.round(6))
    model = SGDClassifier(random_state=0)
    for part in np.array_split(np.arange(len(x)), 4):
        model.partial_fit(x[part], y[part], classes=[0, 1])
    print(model.coef_.round(4)[0, :4], MiniBatchKMeans(3, random_state=0, n_init=1).fit(x).inertia_.round(3))
    joblib.dump(x, "x.joblib")
    mapped = joblib.load("x.joblib", mmap_mode="r")
    print(type(mapped).__name__, np.array_equal(mapped, x), joblib.hash(x))
    memory = joblib.Memory(None)
    print(memory.cache(column_sum)(x, 1))

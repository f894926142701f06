"""SciPy: PageRank over a graph in CSR arrays, of which few pages are linked to by many.

python pagerank.py BYTES
"""

import sys

import numpy as np
from scipy.sparse import csr_array
from stage import Stage

LINKS, ROUNDS, DAMPING = 24, 8, 0.85
AT_ONCE = 1 << 20


def main() -> None:
    stage = Stage()
    nodes = int(sys.argv[1]) // (LINKS * (4 + 8) + 40)
    random = np.random.default_rng(0)
    links = nodes * LINKS
    source = np.empty(links, "i4")
    out = np.zeros(nodes, "i8")
    for start in range(0, links, AT_ONCE):
        part = source[start : start + AT_ONCE]
        part[:] = nodes * random.random(len(part), "f4") ** 2 * 0.999999
        out += np.bincount(part, minlength=nodes)
    weight = np.empty(links)
    for start in range(0, links, AT_ONCE):
        weight[start : start + AT_ONCE] = 1 / out[source[start : start + AT_ONCE]]
    graph = csr_array((weight, source, np.arange(0, links + 1, LINKS, dtype="i4")), shape=(nodes, nodes))
    rank = np.full(nodes, 1 / nodes)
    for _ in range(ROUNDS):
        rank = DAMPING * (graph @ rank) + (1 - DAMPING) / nodes
    best = np.argsort(rank)[-10:]
    stage.end(rank.sum(), rank.max(), rank.std(), *rank[best], float((rank * np.arange(nodes)).sum()))


if __name__ == "__main__":
    main()

"""pandas: sums by group, and a join.

python tables.py BYTES
"""

import sys

import numpy as np
import pandas as pd
from stage import Stage

#: Bytes that a row takes at the worst moment, of the join.
ROW = 92


def main() -> None:
    stage = Stage()
    rows = int(sys.argv[1]) // ROW
    random = np.random.default_rng(0)
    customers = max(rows // 100, 10)
    sales = pd.DataFrame(
        {
            "customer": random.integers(0, customers, rows),
            "day": np.arange(rows) * 3650 // rows,
            "price": random.integers(100, 100_000, rows) / 100,
            "pieces": random.integers(1, 20, rows),
        }
    )
    sales["amount"] = sales["price"] * sales["pieces"]
    groups = sales.groupby("customer").agg(total=("amount", "sum"), largest=("price", "max"), sales=("day", "count"))
    joined = sales.merge(groups, left_on="customer", right_index=True, how="left")
    share = joined["amount"] / joined["total"]
    by_day = (share * (joined["price"] == joined["largest"])).groupby(joined["day"]).sum()
    stage.end(
        len(groups), groups["total"].sum(), groups["largest"].mean(), share.sum(), by_day.sum(), by_day.std(),
        float((by_day.to_numpy() * np.arange(len(by_day))).sum()),
    )  # fmt: skip


if __name__ == "__main__":
    main()

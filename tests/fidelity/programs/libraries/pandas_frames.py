"""pandas: groupby, merge, pivot, sort, time series, missing values, CSV and pickle files.

Needs: pandas
"""

import numpy as np
import pandas as pd

rng = np.arange(120_000)
frame = pd.DataFrame({"k": rng % 97, "x": np.sqrt(rng), "t": pd.date_range("2020-01-01", periods=len(rng), freq="min")})
print(frame.groupby("k")["x"].agg(["mean", "max", "count"]).round(4).head(3))
other = pd.DataFrame({"k": np.arange(97), "name": [f"n{k}" for k in range(97)]})
print(
    frame.merge(other, on="k").query("k == 5")["name"].nunique(),
    frame.set_index("t").x.resample("D").sum().round(2).tail(2),
)
print(frame.sort_values("x", ascending=False).iloc[:2].to_string(), frame.describe().round(3).to_string(), sep="\n")
frame.loc[frame.k == 3, "x"] = np.nan
print(frame.x.isna().sum(), frame.x.interpolate().sum().round(3), frame.x.rolling(50).mean().iloc[-1].round(4))
frame.iloc[:3000].to_csv("a.csv", index=False)
print(pd.read_csv("a.csv", parse_dates=["t"]).dtypes.to_string())
frame.to_pickle("a.pkl")
back = pd.read_pickle("a.pkl")
print(back.equals(frame), pd.concat([frame, back]).drop_duplicates().shape, frame.memory_usage(index=False).sum())
print(
    pd.cut(frame.x, 4).value_counts().tolist(),
    frame.k.astype("category").cat.codes.sum(),
    frame.x.quantile([0.1, 0.9]).round(3).tolist(),
)

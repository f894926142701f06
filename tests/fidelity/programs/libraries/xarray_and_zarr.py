"""xarray and zarr: chunks on disk, slices, groupby, selections, and a round trip of a data set.

Needs: xarray, zarr
"""

import numpy as np
import xarray as xr
import zarr

a = np.arange(600_000, dtype="f4").reshape(60, 100, 100)
z = zarr.open("a.zarr", mode="w", shape=a.shape, chunks=(10, 50, 50), dtype="f4")
z[:] = a
z[3, 5] = -1
print(z[3, 5, :3], float(z[7].sum()), np.array_equal(zarr.open("a.zarr", mode="r")[10:], a[10:]))
data = xr.Dataset(
    {"v": (("t", "y", "x"), a)}, coords={"t": np.arange(60), "y": np.arange(100), "x": np.linspace(0, 1, 100)}
)
print(float(data.v.mean()), data.v.groupby(data.t % 7).max("t").sel(y=50, x=0.5, method="nearest").values.ravel()[:3])
print(data.v.isel(t=slice(None, None, 9)).transpose("x", ...).shape, float(data.v.rolling(t=3).mean().sum()))
data.to_zarr("d.zarr", mode="w", consolidated=False)
back = xr.open_zarr("d.zarr", chunks=None, consolidated=False)
print(back.identical(data) or np.array_equal(back.v.values, a), sorted(back.coords))

"""Arrays in pickles of all protocols, out of band, in copyreg, deepcopy, shelve and marshal: the bytes themselves."""

import copy
import hashlib
import io
import marshal
import pickle
import shelve

import numpy as np

a = np.arange(200_000).reshape(200, 1000)
f = np.asfortranarray(a)
for protocol in range(6):
    data = pickle.dumps([a, f[:50], a[::2], a[0, 0]], protocol)
    back = pickle.loads(data)
    print(
        protocol,
        len(data),
        hashlib.md5(data).hexdigest(),
        np.array_equal(back[0], a),
        back[0].flags.writeable,
        back[1].flags.f_contiguous,
    )
buffers: list[pickle.PickleBuffer] = []
data = pickle.dumps([a, f], protocol=5, buffer_callback=buffers.append)
print(len(data), [buffer.raw().nbytes for buffer in buffers])
back = pickle.loads(data, buffers=buffers)
back[0][0] = -1
print(int(a[0, 5]), back[0].base is not None, np.shares_memory(back[0], a))
frozen = pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])
print(frozen[0].flags.writeable, np.array_equal(frozen[1], a) or int(frozen[1][0, 3]))
with open("p", "wb") as file:
    pickle.Pickler(file, 5).dump(a)
with open("p", "rb") as file:
    print(int(pickle.load(file).sum()))
deep = copy.deepcopy({"a": a, "b": [a]})
print(deep["a"] is deep["b"][0], deep["a"] is a, np.array_equal(deep["a"], a))
with shelve.open("shelf") as shelf:
    shelf["a"] = a
    print(int(shelf["a"].sum()))
print(len(marshal.dumps(a[:10])), type(marshal.loads(marshal.dumps(a[:10]))).__name__, io.BytesIO(data).read(2))

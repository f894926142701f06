"""Arrays as SQLite blobs: parameters, incremental blob I/O, a user function, backup, serialize."""

import sqlite3

import numpy as np

a = np.arange(250_000)
with sqlite3.connect("a.db") as db:
    db.execute("create table t (k integer primary key, v blob)")
    db.execute("insert into t values (1, ?)", (a,))
    db.executemany("insert into t values (?, ?)", [(k, a[k : k + 30_000].copy()) for k in range(2, 6)])
    db.execute("insert into t values (9, zeroblob(2000000))")
print(np.array_equal(np.frombuffer(db.execute("select v from t where k=1").fetchone()[0], "i8"), a))
with db.blobopen("t", "v", 9) as blob:
    blob.write(a.tobytes())
    blob.seek(800)
    print(np.frombuffer(blob.read(32), "i8"), len(blob))
    blob[0:16] = a[5:7].tobytes()
db.commit()
db.create_function("total", 1, lambda v: int(np.frombuffer(v, "i8").sum()))
print(db.execute("select k, length(v), total(v) from t").fetchall())
copy = sqlite3.connect(":memory:")
db.backup(copy)
print(len(copy.serialize()) == len(db.serialize()), copy.execute("pragma integrity_check").fetchone())
try:
    db.execute("insert into t values (1, ?)", (a,))
except sqlite3.IntegrityError as error:
    print(error)
db.close()

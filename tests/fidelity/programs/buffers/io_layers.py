"""Arrays through io: BufferedWriter, BufferedRandom, TextIOWrapper, BytesIO.getbuffer, shutil, tempfile, array."""

import array
import io
import shutil
import tempfile

import numpy as np

a = np.arange(300_000)
with open("f", "w+b", buffering=1 << 16) as file:
    file.write(b"head")
    file.write(a)
    file.seek(4)
    b = np.zeros_like(a)
    print(file.readinto(b), np.array_equal(a, b))
    file.seek(4)
    print(file.readinto1(b) > 0, file.peek(8)[:1] != b"")
stream = io.BytesIO()
stream.write(a)
buffer = stream.getbuffer()
np.frombuffer(buffer, "i8")[0] = 9
del buffer
print(stream.getvalue()[:8], io.BytesIO(a).readinto(b))
numbers = array.array("q")
numbers.frombytes(a)
print(len(numbers), numbers[-1], np.array_equal(np.asarray(numbers), a))
with tempfile.SpooledTemporaryFile(1_000_000) as spooled:
    spooled.write(a)
    spooled.seek(0)
    shutil.copyfileobj(spooled, open("copy", "wb"))
print(bytes(a[:2]), bytearray(a)[8:9], b"".join([a[:1], a[1:2]]), memoryview(a)[3], memoryview(a)[::100_000].tolist())
text = io.TextIOWrapper(io.BytesIO(np.full(300_000, 65, "u1")), encoding="ascii")
print(len(text.read()), str(np.full(4, 66, "u1"), "ascii"), int.from_bytes(a[5:6], "little"))

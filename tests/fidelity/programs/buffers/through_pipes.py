"""Arrays through pipes, to a thread and to a subprocess: os.write, readinto, subprocess input and output."""

import os
import subprocess
import sys
import threading

import numpy as np

a = np.arange(300_000)
reader, writer = os.pipe()
source, sink = os.fdopen(reader, "rb", 0), os.fdopen(writer, "wb", 0)
b = np.zeros_like(a)
counts = []


def drain() -> None:
    view = b.view("u1")
    filled = 0
    while n := source.readinto(view[filled:]):
        filled += n
    counts.append(filled)


thread = threading.Thread(target=drain)
thread.start()
view = a.view("u1")
while len(view):
    view = view[sink.write(view) :]
sink.close()
thread.join()
source.close()
print(counts, np.array_equal(a, b))
upper = subprocess.run(
    [sys.executable, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"],
    input=a,
    capture_output=True,
)
print(np.array_equal(np.frombuffer(upper.stdout[::-1], "i8"), a), upper.returncode)
with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=open("cat.out", "wb")) as process:
    process.stdin.write(a[:100_000])
reader, writer = os.pipe()
os.close(reader)
try:
    os.write(writer, a)
except BrokenPipeError as error:
    print(error)
os.set_blocking(os.pipe()[0], False)
r2, w2 = os.pipe()
os.set_blocking(w2, False)
print(os.write(w2, a[:100_000]), os.readv(r2, [b[:100], b[100:200]]))
try:
    while os.write(w2, a[:1000]):
        pass
except BlockingIOError as error:
    print(error)

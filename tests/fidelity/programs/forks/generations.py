"""Children of children each have what their own parent had, whatever the others write meanwhile: os.fork."""

import os

import numpy as np

a = np.zeros((600, 1000))


def descend(depth: int) -> int:
    a[depth * 100 : (depth + 1) * 100] = depth + 1
    if depth == 4:
        return int(a.sum())
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, str(descend(depth + 1)).encode())
        os._exit(depth)
    os.close(writer)
    a[:] += 100
    below = os.read(reader, 100).decode()
    os.close(reader)
    _, status = os.waitpid(child, 0)
    print(depth, below, os.waitstatus_to_exitcode(status), int(a.sum()), flush=True)
    return int(below)


print(descend(0))

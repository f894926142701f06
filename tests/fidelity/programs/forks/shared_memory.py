"""multiprocessing.shared_memory and RawArray beside ordinary arrays: workers write to what is shared only."""

import ctypes
import multiprocessing
from multiprocessing import shared_memory

import numpy as np

private = np.ones(500_000)


def work(name: str, raw: ctypes.Array) -> None:
    block = shared_memory.SharedMemory(name)
    shared = np.ndarray(300_000, buffer=block.buf)
    shared += private[:300_000]
    np.frombuffer(raw)[:] = shared.sum()
    private[:] = 0
    del shared
    block.close()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    block = shared_memory.SharedMemory(create=True, size=8 * 300_000)
    shared = np.ndarray(300_000, buffer=block.buf)
    shared[:] = np.arange(300_000)
    raw = context.RawArray("d", 3)
    for _ in range(2):
        worker = context.Process(target=work, args=(block.name, raw))
        worker.start()
        worker.join()
        print(worker.exitcode, float(shared.sum()), list(raw), float(private.sum()))
    del shared
    block.close()
    block.unlink()

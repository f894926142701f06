"""How a child of multiprocessing ended is known: an exception, a signal, an exit code, os.abort."""

import multiprocessing
import os
import signal
import sys

import numpy as np

a = np.arange(500_000)


def child(how: str) -> None:
    sys.stderr = open(f"stderr.{how}", "w")
    total = int(a.sum())
    if how == "raise":
        raise RuntimeError(total)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        os.abort()
    if how == "exit":
        sys.exit(9)


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    for how in ("raise", "kill", "abort", "exit", "return"):
        process = context.Process(target=child, args=(how,))
        process.start()
        process.join()
        print(how, process.exitcode)

"""multiprocessing Queue, Pipe, Manager, Value, Lock and Barrier carry arrays and counts between processes."""

import multiprocessing

import numpy as np


def produce(queue, pipe, barrier, counter, shared) -> None:
    a = np.arange(100_000) * 2
    barrier.wait()
    queue.put(a)
    pipe.send_bytes(a[:1000])
    pipe.send({"a": a[::100]})
    with counter.get_lock():
        counter.value += int(a[5])
    shared["list"] = a[:3].tolist()
    pipe.close()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    own = np.ones(400_000)
    with context.Manager() as manager:
        shared = manager.dict()
        queue, barrier, counter = context.Queue(), context.Barrier(3), context.Value("i", 0)
        pipes = [context.Pipe() for _ in range(2)]
        workers = [context.Process(target=produce, args=(queue, end, barrier, counter, shared)) for _, end in pipes]
        for worker in workers:
            worker.start()
        barrier.wait()
        print([int(queue.get().sum()) for _ in workers])
        for mine, _ in pipes:
            target = np.zeros(1000, "i8")
            print(mine.recv_bytes_into(target), int(target.sum()), int(mine.recv()["a"].sum()))
        for worker in workers:
            worker.join()
        print(counter.value, dict(shared), float(own.sum()), [worker.exitcode for worker in workers])

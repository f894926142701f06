"""asyncio: array work in tasks, in executors and in subprocesses; streams that carry arrays; cancellation."""

import asyncio
import sys

import numpy as np

a = np.arange(300_000)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.readexactly(a.nbytes)
    writer.write(np.frombuffer(data, "i8")[::-1].copy())
    await writer.drain()
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(a.data)
    back = np.frombuffer(await reader.readexactly(a.nbytes), "i8")
    print(np.array_equal(back[::-1], a))
    writer.close()
    server.close()
    print(await asyncio.gather(*(asyncio.to_thread(lambda k=k: int((a + k).sum())) for k in range(4))))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import sys; print(len(sys.stdin.buffer.read()))", stdin=-1, stdout=-1
    )
    print(await process.communicate(a[:100_000].tobytes()), process.returncode)

    async def endless() -> None:
        while True:
            np.ones(50_000).sum()
            await asyncio.sleep(0)

    task = asyncio.create_task(endless())
    try:
        await asyncio.wait_for(task, 0.1)
    except TimeoutError:
        print("timeout", task.cancelled())
    raise RuntimeError("out of main")


asyncio.run(main())

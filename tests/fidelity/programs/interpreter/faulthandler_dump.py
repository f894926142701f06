"""faulthandler dumps the stacks of the program's threads and no others, on demand and by a timer."""

import faulthandler
import re
import threading

import numpy as np

stop = threading.Event()


def wait() -> None:
    own = np.ones(300_000)
    stop.wait()
    own += 1


threads = [threading.Thread(target=wait) for _ in range(2)]
for thread in threads:
    thread.start()
a = np.ones(500_000) + 1
with open("dump", "w+") as file:
    faulthandler.dump_traceback(file)
    file.seek(0)
    text = file.read()
print(
    re.sub("0x[0-9a-f]+", "", text).count("hread "), (text.count("in wait") > 0), "thermocline" in text, float(a.sum())
)
open("dump", "w").close()
with open("later", "w+") as file:
    faulthandler.dump_traceback_later(0.05, file=file)
    while not file.read():
        a = np.sqrt(a)
        file.seek(0)
    faulthandler.cancel_dump_traceback_later()
open("later", "w").close()
stop.set()
for thread in threads:
    thread.join()

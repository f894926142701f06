"""Root of a user namespace, in a mount and network namespace of its own, as rootless containers are.

Started by: unshare --user --map-root-user --net --mount
"""

import os
import socket

import numpy as np

a = np.arange(600_000)
a += 1
print(os.getuid(), sorted(name for _, name in socket.if_nameindex()), int(a.sum()))
if not os.fork():
    a[:] = 3
    os._exit(int(a[7]))
print(os.waitstatus_to_exitcode(os.wait()[1]), int(a.sum()))

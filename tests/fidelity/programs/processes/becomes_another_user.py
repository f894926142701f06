"""A service that starts as root drops it once its arrays are there: os.setgid, os.setuid, and a fork after that.

Settings: full, 4k, killed
"""

import os

import numpy as np

a = np.arange(600_000)
os.makedirs("spool", mode=0o777, exist_ok=True)
os.chmod("spool", 0o777)
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
b = a * 2
np.save("spool/b.npy", b)
child = os.fork()
if not child:
    b += 1
    b.tofile("spool/child")
    os._exit(int(b[100]))
a[:] = 5
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int(np.load("spool/b.npy").sum()), int(a.sum()))
print(np.fromfile("spool/child", "i8")[:3], oct(os.stat("spool/child").st_mode), os.stat("spool/child").st_uid)

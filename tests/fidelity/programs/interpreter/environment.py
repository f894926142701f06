"""What a program can ask the interpreter about itself: threads, modules, children, open files, limits, argv."""

import os
import resource
import signal
import sys
import threading

print(
    sys.argv[1:], sys.flags.optimize, len(sys.path) == len(set(sys.path)), [p for p in sys.path if "thermocline" in p]
)
print(threading.active_count(), os.listdir("/proc/self/task").__len__(), sorted(os.environ)[:0])
print([k for k in os.environ if "THERMOCLINE" in k or k in ("PYTHONPATH", "LD_PRELOAD")])
import numpy as np

a = np.ones(600_000)
a *= 2
print(open(f"/proc/self/task/{os.getpid()}/children").read().split(), os.getpgid(0) == os.getpid() or os.getsid(0) != 0)
print(
    resource.getrlimit(resource.RLIMIT_NOFILE),
    resource.getrlimit(resource.RLIMIT_AS),
    resource.getrlimit(resource.RLIMIT_CORE),
)
print(os.open("one", os.O_CREAT | os.O_WRONLY), os.dup(1), sys.getrecursionlimit())
print(signal.getsignal(signal.SIGIO), signal.getsignal(signal.SIGSEGV), signal.getsignal(signal.SIGCHLD))
print(sys.gettrace(), sys.getprofile(), sys.excepthook is sys.__excepthook__, sys.meta_path.__len__())
print(np.empty.__module__, np.zeros, type(np.ones(5)), np.get_include()[-30:], np._core.multiarray.get_handler_name())
os.umask(os.umask(0o027))
print(
    oct(os.umask(0)),
    os.getcwd() == os.environ["HOME"],
    os.nice(0),
    os.sched_getaffinity(0) == set(range(os.cpu_count())),
)

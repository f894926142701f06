"""Masks, pending signals, sigwait and the wakeup descriptor are the program's: signal, select."""

import os
import select
import signal
import socket
import threading

import numpy as np

print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), sorted(signal.sigpending()))
print([number for number in signal.valid_signals() if signal.getsignal(number) not in (signal.SIG_DFL, None)])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGIO, signal.SIGCHLD})
a = np.ones(600_000)
a += a
os.kill(os.getpid(), signal.SIGUSR1)
print(signal.sigwait({signal.SIGUSR1, signal.SIGIO, signal.SIGCHLD}), sorted(signal.sigpending()))
reader, writer = socket.socketpair()
writer.setblocking(False)
signal.set_wakeup_fd(writer.fileno())
signal.signal(signal.SIGUSR2, lambda *_: None)
threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR2)).start()
while not select.select([reader], [], [], 0)[0]:
    a = np.sqrt(a)
print(list(reader.recv(10)), float(a.mean()))
signal.set_wakeup_fd(-1)

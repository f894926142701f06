"""Calls that fill a buffer and are seldom given an array: getcwd, readlink, getrandom, by ctypes."""

import ctypes
import os

import numpy as np

libc = ctypes.CDLL(None, use_errno=True)
large = np.arange(600_000)
os.symlink("target", "link")
name = np.zeros(300_000, "u1")
libc.getcwd(ctypes.c_void_p(name.ctypes.data), ctypes.c_size_t(name.size))
print(bytes(name[:200]).rstrip(b"\0") == os.getcwdb())
link = np.zeros(300_000, "u1")
print(libc.readlink(b"link", ctypes.c_void_p(link.ctypes.data), ctypes.c_size_t(link.size)), bytes(link[:6]))
noise = np.zeros(300_000, "u1")
print(libc.getrandom(ctypes.c_void_p(noise.ctypes.data), ctypes.c_size_t(200), 0), bool(noise.any()), int(large.sum()))

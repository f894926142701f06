"""A subinterpreter runs code of its own while the main one uses arrays: _xxsubinterpreters."""

import os

import numpy as np

try:
    import _xxsubinterpreters as interpreters
except ImportError:
    import _interpreters as interpreters

a = np.arange(500_000)
other = interpreters.create()
reader, writer = os.pipe()
interpreters.run_string(other, f"import os, json, sqlite3; os.write({writer}, json.dumps([1, 2]).encode())")
print(os.read(reader, 100), int((a * 2).sum()))
try:
    interpreters.run_string(other, "import os; x = [0] * 300000; raise ValueError(len(x))")
except Exception as error:
    print(type(error).__name__, error)
interpreters.destroy(other)
print(int((a * 3).sum()))

"""Runs a program under plain Python with all large NumPy arrays in a ``Memory`` of this process.

python library.py SPEC MIN_ARRAY STAT_FILE PROGRAM...
"""

import json
import runpy
import sys

import thermocline

if __name__ == "__main__":
    _, spec, min_array, stat, *sys.argv = sys.argv
    memory = thermocline.Memory(spec)
    try:
        with memory.numpy(min_array=min_array):
            runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        with open(stat, "w") as file:
            json.dump(memory.stat(), file)

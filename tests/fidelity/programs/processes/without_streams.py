"""Started without standard input and output, as by some service managers: files take their numbers.

Started by: sh -c 'exec "$@" <&- >&-' sh
"""

import os
import sys

import numpy as np

a = np.arange(600_000)
a += 1
with open("said", "w") as file:
    print(sys.stdin, sys.stdout, file.fileno(), int(a.sum()), file=file)
    second = os.open("second", os.O_CREAT | os.O_RDWR)
    print(second, os.write(second, a[:100_000]), int((a * 2).sum()), file=file)

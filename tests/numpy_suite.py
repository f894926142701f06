"""NumPy's own test suite, in an empty directory: ``numpy_suite.py [MODULE...]``, all of NumPy if none is named.

Run it under ``thermocline run`` to see that no array notices where it lives (``make test-numpy``), and with plain
python to see what fails without us, too. Nothing is deselected but what NumPy's own ``numpy.test()`` leaves out
(tests marked slow); there is no list of known failures, because there are none.
"""

import os
import sys
import tempfile
from pathlib import Path

import pytest

# Extensions that NumPy's tests build need meson and ninja, which are beside this interpreter.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

with tempfile.TemporaryDirectory() as directory:
    os.chdir(directory)
    status = pytest.main(
        ["-q", "-p", "no:cacheprovider", "-p", "no:timeout", "-m", "not slow", "--pyargs", *(sys.argv[1:] or ["numpy"])]
    )
    os.chdir("/")
sys.exit(status)

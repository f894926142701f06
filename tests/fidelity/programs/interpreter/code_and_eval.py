"""exec, runpy, importlib, -c and -m programs with arrays of their own; __main__ and modules that are reloaded."""

import importlib
import os
import runpy
import sys

import numpy as np

os.makedirs("package", exist_ok=True)
with open("package/__init__.py", "w") as file:
    file.write("import numpy as np\nTABLE = np.arange(300_000)\n")
with open("package/__main__.py", "w") as file:
    file.write("from . import TABLE\nimport sys\nprint(__name__, int(TABLE.sum()), sys.argv[1:])\n")
sys.path.insert(0, os.getcwd())
import package

first = package.TABLE
again = importlib.reload(package).TABLE
print(first is again, np.array_equal(first, again))
sys.argv[1:] = ["x"]
runpy.run_module("package", run_name="__main__", alter_sys=True)
namespace: dict[str, object] = {}
exec("import numpy as np\na = np.ones(400_000)\nb = a * 2", namespace)
print(float(namespace["b"].sum()), eval("a.sum() + b.sum()", namespace))
print(runpy.run_path("package/__init__.py")["TABLE"][-1], sys.modules["__main__"].__name__, __file__ == sys.argv[0])

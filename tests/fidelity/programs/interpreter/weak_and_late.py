"""weakref.finalize, contextvars, atexit and threading locals that hold arrays run in their order at the end."""

import atexit
import contextvars
import weakref

import numpy as np


class Holder:
    pass


holder = Holder()
holder.array = np.arange(300_000)
total = holder.array.sum
weakref.finalize(holder, lambda: print("finalize", int(total())))
weakref.finalize(holder.array, print, "array is gone")
variable = contextvars.ContextVar("v", default=np.zeros(200_000))
context = contextvars.copy_context()
context.run(variable.set, np.ones(250_000))
print(float(context[variable].sum()), float(variable.get().sum()))
atexit.register(lambda: print("first registered", float(context[variable].sum())))
atexit.register(lambda: print("last registered", float(np.full(400_000, 2.0).sum())))

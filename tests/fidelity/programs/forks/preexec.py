"""subprocess with preexec_fn runs Python in the forked child, which reads an array there, before the exec."""

import subprocess
import sys

import numpy as np

a = np.arange(700_000)


def before() -> None:
    with open("seen", "w") as file:
        file.write(str(int(a.sum())))
    a[:] = 0


done = subprocess.run([sys.executable, "-c", "print('child')"], preexec_fn=before, capture_output=True, text=True)
print(done.returncode, done.stdout, done.stderr, open("seen").read(), int(a.sum()))

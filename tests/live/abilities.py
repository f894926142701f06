"""What the kernel that tests run on can do."""

import os
from functools import cache

import pytest

from thermocline.live import userfaultfd


@cache
def can_poison() -> bool:
    """Whether a lost page can be made a SIGBUS for whoever touches it, and nobody else (UFFDIO_POISON)."""
    fd, _ = userfaultfd._open()
    try:
        return bool(userfaultfd._features(fd) & userfaultfd.FEATURE_POISON)
    finally:
        os.close(fd)


#: For tests in which a process goes on after it has touched a lost page.
poisons = pytest.mark.skipif(not can_poison(), reason="this kernel has no UFFDIO_POISON (Linux 6.6 has)")

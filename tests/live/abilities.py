"""What the kernel that tests run on can do."""

import os
from functools import cache

from thermocline.live import userfaultfd


@cache
def can_poison() -> bool:
    """Whether a lost page can be made a SIGBUS for whoever touches it, and nobody else (UFFDIO_POISON)."""
    fd, _ = userfaultfd._open()
    try:
        return bool(userfaultfd._features(fd) & userfaultfd.FEATURE_POISON)
    finally:
        os.close(fd)

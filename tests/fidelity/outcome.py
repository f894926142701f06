"""What came of a program: all that its user can see of it."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pagers import kill_now_and_then

#: After so many seconds a program hangs.
LIMIT = 180


@dataclass(frozen=True)
class Outcome:
    """What a program wrote, and how it ended.

    Attributes
    ----------
    status : int or str
        As of :class:`subprocess.Popen`: negative for a signal. ``"hangs"`` if it had to be ended.
    files : dict of str to tuple
        Of each name below its directory, which was empty: type and mode as ``ls -l`` has them, and bytes.
    seconds : float
        How long it took. Not compared.
    """

    stdout: str
    stderr: str
    status: int | str
    files: dict[str, tuple[str, bytes]]
    seconds: float

    def differences(self, other: "Outcome") -> dict[str, tuple[object, object]]:
        """In which parts another outcome differs, and how: this one's and the other's."""
        found: dict[str, tuple[object, object]] = {}
        for part in ("status", "stdout", "stderr"):
            mine, theirs = getattr(self, part), getattr(other, part)
            if mine != theirs:
                found[part] = mine, theirs
        for name in sorted(self.files.keys() | other.files.keys()):
            mine, theirs = self.files.get(name), other.files.get(name)
            if mine != theirs:
                found[f"file {name}"] = _shown(mine), _shown(theirs)
        return found


def _shown(file: tuple[str, bytes] | None) -> str:
    return "none" if file is None else f"{file[0]} {len(file[1])} bytes {file[1][:200]!r}"


def outcome_of(command: Sequence[str], directory: Path, kills: float = 0.0) -> Outcome:
    """Run a command in an empty directory, which is emptied again, and see what comes of it.

    Two programs that are to be compared run in the same directory, one after the other: its name may be in what they
    write.

    Parameters
    ----------
    directory : Path
        There, and anybody's to write in.
    kills : float
        Seconds from one kill of the program's pager to the next; 0: it is not killed.
    """
    work = directory / "work"
    work.mkdir()
    work.chmod(0o777)
    streams = [directory / name for name in ("stdout", "stderr")]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(work), "COLUMNS": "80"}
    begun = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            out, err = (stack.enter_context(open(path, "wb")) for path in streams)
            process = subprocess.Popen(
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                text=True,
            )
            hangs = threading.Event()
            timer = threading.Timer(LIMIT, lambda: (hangs.set(), os.killpg(process.pid, signal.SIGKILL)))
            timer.start()
            try:
                if kills:
                    for _ in kill_now_and_then(process, kills):
                        pass
                status: int | str = process.wait()
            finally:
                timer.cancel()
                timer.join()
                process.kill()
                process.wait()
        return Outcome(
            stdout=streams[0].read_text(errors="backslashreplace"),
            stderr=streams[1].read_text(errors="backslashreplace"),
            status="hangs" if hangs.is_set() else status,
            files={str(path.relative_to(work)): _file(path) for path in sorted(work.rglob("*"))},
            seconds=time.monotonic() - begun,
        )
    finally:
        shutil.rmtree(work)


def _file(path: Path) -> tuple[str, bytes]:
    status = path.lstat()
    mode = stat.filemode(status.st_mode)
    return mode, path.read_bytes() if stat.S_ISREG(status.st_mode) else b""

"""One of the processes of ``program.py``, as seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

#: struct ucred: process, user, group (unix(7), ``SO_PEERCRED``).
_CREDENTIALS = struct.Struct("=iII")


class GoneError(AssertionError):
    """A process has ended that should not have."""


class Member:
    """A process, and the line to it.

    Parameters
    ----------
    name : str
        What to call it when something is wrong.
    connection : socket
        It has just been made from there.
    """

    def __init__(self, name: str, connection: socket.socket) -> None:
        self.name = name
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self.pid, _, _ = _CREDENTIALS.unpack(credentials)
        self.handle = os.pidfd_open(self.pid)
        self._line = connection
        self._answers = connection.makefile("r")

    def begin(self, what: str, arguments: dict[str, Any]) -> None:
        """Tell it something."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, which its answer tells
            self._line.sendall(json.dumps([what, arguments]).encode() + b"\n")

    def answers_within(self, seconds: float) -> bool:
        """Whether it answers, or ends, before so much time has passed."""
        return bool(select.select([self._line], [], [], seconds)[0])

    def answer(self, what: str, state: Callable[[], str]) -> dict[str, Any]:
        """What it said.

        Raises
        ------
        AssertionError
            It has found something wrong, with the state of everybody.
        GoneError
            It has ended.
        """
        try:
            line = self._answers.readline()
        except ConnectionError:
            line = ""
        if not line:
            raise GoneError(f"{what} ended the {self.name}")
        answer: dict[str, Any] = json.loads(line)
        if "wrong" in answer:
            raise AssertionError(f"{what}, {self.name}: {answer['wrong']}\n{state()}")
        return answer

    def kill(self) -> None:
        """End it, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.handle, signal.SIGKILL)

    def gone_within(self, seconds: float) -> bool:
        """Whether it has ended before so much time has passed."""
        return bool(select.select([self.handle], [], [], seconds)[0])

    def close(self) -> None:
        """Forget it."""
        self._answers.close()
        self._line.close()
        os.close(self.handle)

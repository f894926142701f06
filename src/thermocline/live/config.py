"""What the program hands to the supervisor, and the supervisor to each pager: numbers, and open descriptors.

It travels as JSON through an inherited pipe, the descriptors by inheritance, under the same numbers.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from thermocline.errors import SpecError
from thermocline.spec import Compressed, Dram, File, NodeSpec, Numa

#: Who answers faults (see :mod:`thermocline.live.engine`), and the environment variable that says it.
ENGINES = ("native", "python")
ENGINE = "THERMOCLINE_ENGINE"


def chosen_engine() -> str:
    """The engine that the environment names, or the native one.

    Raises
    ------
    SpecError
        There is none of that name.
    """
    engine = os.environ.get(ENGINE) or ENGINES[0]
    if engine not in ENGINES:
        raise SpecError(f'{ENGINE}: there is no engine "{engine}"; write {" or ".join(ENGINES)}')
    return engine


@dataclass(frozen=True)
class Config:
    """One tiered memory, as its processes need to know it.

    Attributes
    ----------
    nodes : tuple of NodeSpec
        The demotion path, DRAM first.
    stores : list of list of int
        Descriptors of the store of each node but DRAM: none of one that is mapped.
    arena_address : int
        Where the program has mapped the arena.
    pages : int
        Pages of the arena's address range: more than can be committed, so that addresses do not run out first.
    door, secret : int
        The socket that listens for processes that fork, or join; what they have to say (:class:`Door
        <thermocline.live.attachment.Door>`).
    saved : int
        The memfd of saved copies (see :mod:`thermocline.protocol.cow`).
    fork : str
        ``"copy"``: forked children see the arrays as they were; ``"share"``: they share them.
    commit : str
        ``"strict"``: no more is allocated than the nodes hold; ``"heuristic"``: see
        :mod:`thermocline.protocol.first_touch`.
    control : int
        The supervisor's end of the control socket (see :mod:`thermocline.live.supervisor`).
    poll : bool
        Whether the pager looks for the next fault for a while before it sleeps.
    engine : str
        ``"native"``: faults that take the straight line are answered in native code; ``"python"``: none is.
    inject : str
        Deaths and failures made to order (see :mod:`thermocline.live.injection`).
    report : int
        Where the supervisor writes the last statistics as JSON; -1: nowhere.
    """

    nodes: tuple[NodeSpec, ...]
    page_size: int
    pages: int
    arena_address: int
    program: int
    design: str
    discard_clean: bool
    readahead_pages: int
    uffd: int
    arena: int
    tables: int
    control: int
    lifeline: int
    door: int
    secret: int
    saved: int
    group_reclaim: str = "left"
    parts: bool = True
    fork: str = "copy"
    commit: str = "strict"
    poll: bool = True
    engine: str = "native"
    inject: str = ""
    report: int = -1
    stores: list[list[int]] = field(default_factory=list)

    @property
    def descriptors(self) -> list[int]:
        """Every descriptor that the supervisor inherits."""
        single = [
            self.uffd,
            self.arena,
            self.tables,
            self.control,
            self.lifeline,
            self.door,
            self.saved,
        ]
        if self.report >= 0:
            single.append(self.report)
        return single + [fd for fds in self.stores for fd in fds]

    def dumps(self) -> str:
        """As JSON."""
        fields: dict[str, Any] = {name: value for name, value in vars(self).items() if name != "nodes"}
        fields["nodes"] = [{"kind": type(spec).__name__, **_plain(asdict(spec))} for spec in self.nodes]
        return json.dumps(fields)

    @classmethod
    def loads(cls, text: str) -> Config:
        """The opposite of :meth:`dumps`."""
        kinds = {kind.__name__: kind for kind in (Dram, Numa, Compressed, File)}
        fields = json.loads(text)
        fields["nodes"] = tuple(kinds[spec.pop("kind")](**spec) for spec in fields["nodes"])
        return cls(**fields)


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if value is None or isinstance(value, (int, float, str)) else str(value)
        for name, value in fields.items()
    }

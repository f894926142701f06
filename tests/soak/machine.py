"""A random walk over everything a program can do with a memory, and over everything that can go wrong meanwhile.

The nodes are so small that every path is taken: all of them fill up, reclaim itself reclaims, groups hit their limits,
allocations fail. Pagers are killed and stopped at any moment and at chosen points, devices fail, and pages are lost.
What must hold: what is read is what was last written, or an error that stderr has announced, for ever; everything
ends; and when all arrays are gone, nothing is used.

The program is another process (``program.py``): one that hangs, or is ended, is then a failure like any other, which
hypothesis makes small.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from subject import HangError, Subject, Tally

PAGE = 4 << 10
DRAM = 24 * PAGE
SPEC = "dram=96KiB, lz4=64KiB;incompressible={rule}, zstd=96KiB, file:{{directory}}=256KiB"
KINDS = ("noise", "ramp", "constant", "zeros")
ADVICE = ("cold", "willneed", "sequential", "random", "normal")
#: Pages that may be committed where a node dies: what the others can hold, whichever it is.
SAFE_WITHOUT_A_NODE = 40
#: Effects that every workload brings about.
POINTS = ("Commit", "CopyList", "Fill", "Lock", "Punch", "Release", "Remap", "Reserve", "TryLock", "Unmap", "Unlock")

_nodes = st.sampled_from(["lz4", "zstd", "file"])
_calls = st.integers(1, 200)
kills_at_points = st.builds(
    "kill {} {} {}".format, st.sampled_from(["before", "after"]), st.sampled_from(POINTS), st.integers(1, 60)
)
failing_writes = st.builds("fail write {} {} {}".format, _nodes, st.sampled_from(["EIO", "ENOSPC", "EAGAIN"]), _calls)
failing_reads = st.builds("fail read {} EIO {}".format, _nodes, _calls)
stalls = st.builds("hang any file {} 20ms".format, _calls)
deaths_of_nodes = st.builds("fail {} {} EIO {} on".format, st.sampled_from(["write", "any"]), _nodes, _calls)
what_goes_wrong = st.tuples(
    st.lists(kills_at_points, max_size=2),
    st.lists(st.one_of(failing_writes, stalls), max_size=3),
    st.lists(failing_reads, max_size=2),
    st.lists(deaths_of_nodes, max_size=1),
)


class TieredArrays(RuleBasedStateMachine):
    """Tiered arrays and their plain twins, in a program, and those who mean it ill."""

    design = "batch"
    tally: ClassVar[Tally] = Tally()
    #: It serves one example after the other, for as long as nothing is wrong.
    subject: ClassVar[Subject | None] = None
    #: Whether an example has failed.
    failed_before: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.born: dict[int, int] = {}
        self.next = 0
        self.kills_then = self.tally.kills

    # -- the program --------------------------------------------------------------------------------------------------

    def tell(self, what: str, **arguments: Any) -> Any:
        """Let the program do something; what it lost meanwhile must have been announced -> what it says."""
        self.tally.steps += 1
        with self.failing_loudly():
            answer = self.program.tell(what, **arguments)
            self.tally.lost_pages += len(answer["lost"])
            for key, page in answer["lost"]:
                assert self.lossy, f"page {page} is lost"
                # Another array may have had a page of that number, and lost it.
                assert self.program.has_announced(page, self.born[key]), f"nobody has said that page {page} is lost"
            return answer["said"]

    @contextmanager
    def failing_loudly(self) -> Iterator[None]:
        """Say at once what has failed first, for it may never do so again; and have no more of that program."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, AssertionError):
                self.tally.hangs += isinstance(error, HangError)
                self.tally.wrong += not isinstance(error, HangError)
                if not self.failed_before:
                    type(self).failed_before = True
                    self.say_what_was_done(error)
            self.stop_program()
            raise

    def say_what_was_done(self, error: AssertionError) -> None:
        """The steps that were really taken, and what became of them."""
        print(f"{self.design}: {error}\nafter these steps:", file=sys.stderr)
        for step in self.program.trace:
            print(f"  {json.dumps(step)}", file=sys.stderr)
        print(f"and these words:\n{self.program.said(self.began)}", file=sys.stderr, flush=True)

    @classmethod
    def stop_program(cls) -> None:
        """End the program, if there is one."""
        if TieredArrays.subject is not None and TieredArrays.subject.running:
            TieredArrays.subject.end()
        TieredArrays.subject = None

    # -- the memory ---------------------------------------------------------------------------------------------------

    @initialize(
        clean=st.sampled_from(["demote", "discard"]),
        keep=st.booleans(),
        readahead=st.sampled_from([0, 4, 32]),
        wrong=what_goes_wrong,
    )
    def open(self, clean: str, keep: bool, readahead: int, wrong: tuple[list[str], ...]) -> None:
        kills, nuisances, lossy_reads, deaths = wrong
        self.deaths = len(kills)
        self.lossy = bool(lossy_reads) or any(death.startswith("fail any") for death in deaths)
        self.most_pages = SAFE_WITHOUT_A_NODE if deaths else 1 << 20
        if TieredArrays.subject is None:
            TieredArrays.subject = Subject(self.tally)
        self.program = TieredArrays.subject
        self.program.trace = []
        self.program.plan = []
        self.began = self.program.position()
        self.tally.examples += 1
        self.tell(
            "open",
            inject=";".join([*kills, *nuisances, *lossy_reads, *deaths]),
            lossy=self.lossy,
            spec=SPEC.format(rule="store" if keep else "demote"),
            design=self.design,
            clean=clean,
            readahead=readahead,
        )
        self.program.find_helpers()

    # -- what programs do ---------------------------------------------------------------------------------------------

    @rule(pages=st.integers(1, 40), group=st.integers(0, 2), kind=st.sampled_from(KINDS), seed=st.integers(0, 1000))
    def allocate(self, pages: int, group: int, kind: str, seed: int) -> None:
        if self.may_commit(pages):
            self.born[self.next] = self.program.position()
            self.tell("allocate", key=self.next, pages=pages, group=group, kind=kind, seed=seed)
            self.keep(pages * PAGE - seed % PAGE)

    @rule(pages=st.integers(1, 20), seed=st.integers(0, 1000), left=st.integers(0, 40))
    def make_from_file(self, pages: int, seed: int, left: int) -> None:
        """Where pages may be lost, the file may be cut short behind our back."""
        left = left if self.lossy else pages
        if self.may_commit(pages):
            self.born[self.next] = self.program.position()
            self.tell("make_from_file", key=self.next, pages=pages, seed=seed, left=left)
            self.keep(pages * PAGE - seed % 100)

    @precondition(lambda self: self.sizes)
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def write(self, data: st.DataObject, kind: str) -> None:
        key, start = self.pick(data)
        stop = data.draw(st.integers(start, self.sizes[key]))
        self.tell("write", key=key, start=start, stop=stop, kind=kind)

    @precondition(lambda self: self.sizes)
    @rule(data=st.data(), step=st.sampled_from([1, 100, PAGE, 3 * PAGE]))
    def read(self, data: st.DataObject, step: int) -> None:
        key, start = self.pick(data)
        self.tell("read", key=key, start=start, step=step)

    @precondition(lambda self: self.sizes)
    @rule(data=st.data())
    def read_modify_write(self, data: st.DataObject) -> None:
        self.tell("read_modify_write", key=self.pick_one(data))

    @precondition(lambda self: self.sizes)
    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        key = self.pick_one(data)
        del self.sizes[key]
        self.tell("free", key=key)

    @precondition(lambda self: self.sizes)
    @rule(data=st.data(), advice=st.sampled_from(ADVICE))
    def advise(self, data: st.DataObject, advice: str) -> None:
        key, start = self.pick(data)
        self.tell("advise", key=key, start=start, advice=advice)

    @precondition(lambda self: self.sizes)
    @rule(data=st.data())
    def pin_and_write(self, data: st.DataObject) -> None:
        self.tell("pin_and_write", key=self.pick_one(data))

    @precondition(lambda self: len(self.sizes) > 1)
    @rule()
    def many_threads(self) -> None:
        self.tell("many_threads")

    def may_commit(self, pages: int) -> bool:
        """Whether what is left of the nodes, if one dies, can hold so many pages more."""
        return sum(-(-size // PAGE) for size in self.sizes.values()) + pages <= self.most_pages

    def keep(self, size: int) -> None:
        self.sizes[self.next] = size
        self.next += 1

    def pick_one(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from(sorted(self.sizes)))

    def pick(self, data: st.DataObject) -> tuple[int, int]:
        """An array, and a place in it."""
        key = self.pick_one(data)
        return key, data.draw(st.integers(0, self.sizes[key] - 1))

    # -- what is done to its pagers -----------------------------------------------------------------------------------

    @rule(
        plan=st.lists(
            st.tuples(st.integers(0, 15), st.sampled_from(["kill", "stop", "stop, kill"])), min_size=1, max_size=2
        )
    )
    def disturb(self, plan: list[tuple[int, str]]) -> None:
        """Kill or stop pagers, milliseconds after the beginning of the next step."""
        self.program.plan = plan

    # -- what holds ---------------------------------------------------------------------------------------------------

    @invariant()
    def capacities_hold(self) -> None:
        if hasattr(self, "program"):
            self.books = books = self.tell("books")
            with self.failing_loudly():
                deaths = books["pager"]["starts"] - 1
                assert deaths <= self.tally.kills - self.kills_then + self.deaths, "a pager has died by itself"
                assert books["arena"]["peak_resident"] <= DRAM
                for node in books["nodes"].values():
                    assert 0 <= node["used"] <= node["peak"] <= node["capacity"], node

    def teardown(self) -> None:
        """Verify everything and close the memory.

        An example may end in the middle of a rule, when hypothesis has no more choices to give; that is no failure.
        """
        if hasattr(self, "program") and self.program.running:
            self.tell("verify")
            self.capacities_hold()
            self.tell("close")
            with self.failing_loudly():
                assert "Traceback" not in self.program.said(self.began), "a helper has met an exception"
            kills = self.tally.kills - self.kills_then
            self.tally.deaths_injected += max(self.books["pager"]["starts"] - 1 - kills, 0)
            self.tally.disturbed_calls += self.books["injected"]

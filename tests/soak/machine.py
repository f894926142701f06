"""A random walk over everything a program can do with a memory, and over everything that can go wrong meanwhile.

The nodes are so small that every path is taken: all of them fill up, reclaim itself reclaims, groups hit their limits,
allocations fail. Pagers are killed and stopped at any moment and at chosen points, devices fail, and pages are lost.
The program forks children that live on over many steps, fork themselves and are killed, and sends its arrays to guests,
programs of their own; some of them outlive it. What must hold: what is read, in whatever process, is what was last
written, or an error that stderr has announced, for ever; everything ends; and when all arrays are gone, nothing is
used.

All of them are other processes (``program.py``): one that hangs, or is ended, is then a failure like any other, which
hypothesis makes small.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from holders import PROGRAM, Holders
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from lowered import LIMITS
from misfortunes import what_goes_wrong
from own_files import what_is_wrong_in
from replaced import run_replaced
from subject import HangError, Step, Subject, Tally
from twins import LANES

#: Bytes: the smallest comes up as a whole, the others in parts.
PAGE_SIZES = (4 << 10, 16 << 10, 64 << 10)
#: In pages.
DRAM = 24
KINDS = ("noise", "ramp", "constant", "zeros")
#: Processes beside the program.
MOST_CHILDREN, MOST_GUESTS = 3, 2
#: Bytes from one that is read to the next: all, some of each part, of each, of few parts, of few pages.
STEPS = (1, 100, 4 << 10, 12 << 10, 68 << 10)
ADVICE = ("cold", "willneed", "sequential", "random", "normal")
#: What is done within limits: by whoever has the memory, and by any process.
WITHIN_OF_PROGRAM = ("allocate", "map_file", "share", "pin", "demote", "count")
WITHIN = ("verify", "fork", "make_memory")
#: Where memory is short, threading waits for ever for a thread that could not begin to run Python.
WITHIN_PLENTY = ("start_thread",)
#: Those that make memory short.
OF_MEMORY = ("AS", "MEMLOCK")
#: Pages that may be committed where a node dies: what the others can hold, whichever it is.
SAFE_WITHOUT_A_NODE = 40


def spec_of(page: int, rule: str) -> str:
    """Nodes of few pages of so many bytes, lz4 with a rule for what does not compress."""
    lz4, zstd, file = 16 * page, 24 * page, 64 * page
    return f"dram={DRAM * page}, lz4={lz4};incompressible={rule}, zstd={zstd}, file:{{directory}}={file}"


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
        #: Of every array that somebody has, or may have.
        self.sizes: dict[int, int] = {}
        self.born: dict[int, int] = {}
        self.holders = Holders()
        #: Whether the program has closed the descriptors of its memory: then that is closed when the program ends.
        self.is_cut_off = False
        self.has_run_replaced = False
        self.next = 0
        self.kills_then = self.tally.kills

    # -- the processes ------------------------------------------------------------------------------------------------

    def tell(self, what: str, who: int = PROGRAM, **arguments: Any) -> Any:
        """Let a process do something -> what it says."""
        return self.tell_all({who: Step(what, arguments)})[who]

    def tell_all(self, steps: dict[int, Step], **killed: int) -> dict[int, Any]:
        """Let processes do something at the same time -> what they say."""
        with self.failing_loudly():
            return self.hear(self.program.tell_all(steps, **killed))

    def hear(self, answers: dict[int, dict[str, Any]]) -> dict[int, Any]:
        """What they lost meanwhile must have been announced -> what they say."""
        self.tally.steps += len(answers)
        for answer in answers.values():
            self.tally.lost_pages += len(answer["lost"])
            for key, page in answer["lost"]:
                assert self.lossy, f"page {page} is lost"
                # Another array may have had a page of that number, and lost it.
                assert self.program.has_announced(page, self.born[key]), f"nobody has said that page {page} is lost"
        return {who: answer["said"] for who, answer in answers.items()}

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
        page=st.sampled_from(PAGE_SIZES),
        clean=st.sampled_from(["demote", "discard"]),
        keep=st.booleans(),
        readahead=st.sampled_from([0, 4, 32]),
        wrong=what_goes_wrong,
        last=st.sampled_from(["close", "leave", "end", "vanish", "kill", "execute"]),
        fork=st.sampled_from(["copy", "share"]),
    )
    def open(
        self, page: int, clean: str, keep: bool, readahead: int, wrong: tuple[list[str], ...], last: str, fork: str
    ) -> None:
        self.page = page
        self.shares = fork == "share"
        kills, nuisances, lossy_reads, deaths = wrong
        self.kills = ";".join(kills)
        self.deaths = len(kills)
        self.lossy = bool(lossy_reads) or any(death.startswith("fail any") for death in deaths)
        self.most_pages = SAFE_WITHOUT_A_NODE if deaths else 1 << 20
        self.last = last
        if TieredArrays.subject is None:
            TieredArrays.subject = Subject(self.tally)
        self.directory = tempfile.TemporaryDirectory(dir="/var/tmp")
        self.twins = tempfile.TemporaryDirectory()
        self.program = TieredArrays.subject
        self.program.trace = []
        self.program.plan = []
        self.began = self.program.position()
        self.tally.examples += 1
        self.begin_holder(guest=False)
        self.tell(
            "open",
            inject=";".join([*kills, *nuisances, *lossy_reads, *deaths]),
            directory=self.directory.name,
            spec=spec_of(page, "store" if keep else "demote"),
            design=self.design,
            clean=clean,
            readahead=readahead,
            fork=fork,
        )
        self.program.find_helpers()

    # -- what programs do ---------------------------------------------------------------------------------------------

    @rule(pages=st.integers(1, 40), group=st.integers(0, 2), kind=st.sampled_from(KINDS), seed=st.integers(0, 1000))
    def allocate(self, pages: int, group: int, kind: str, seed: int) -> None:
        if self.may_commit(pages):
            self.born[self.next] = self.program.position()
            self.tell("allocate", key=self.next, pages=pages, group=group, kind=kind, seed=seed)
            self.keep(pages * self.page - seed % self.page)

    @rule(pages=st.integers(1, 20), seed=st.integers(0, 1000), left=st.integers(0, 40))
    def make_from_file(self, pages: int, seed: int, left: int) -> None:
        """Where pages may be lost, the file may be cut short behind our back."""
        left = left if self.lossy else pages
        if self.may_commit(pages):
            self.born[self.next] = self.program.position()
            self.tell("make_from_file", key=self.next, pages=pages, seed=seed, left=left)
            self.keep(pages * self.page - seed % 100)

    @precondition(lambda self: self.holders.with_arrays())
    @rule(data=st.data(), kind=st.sampled_from(KINDS))
    def write(self, data: st.DataObject, kind: str) -> None:
        who = data.draw(st.sampled_from(self.holders.with_arrays()))
        key, start = self.pick(data, who)
        stop = data.draw(st.integers(start, self.sizes[key]))
        self.tell("write", who, key=key, start=start, stop=stop, kind=kind)

    @precondition(lambda self: self.holders.with_arrays())
    @rule(data=st.data(), step=st.sampled_from(STEPS))
    def read(self, data: st.DataObject, step: int) -> None:
        who = data.draw(st.sampled_from(self.holders.with_arrays()))
        key, start = self.pick(data, who)
        self.tell("read", who, key=key, start=start, step=step)

    @precondition(lambda self: self.holders.with_arrays())
    @rule(data=st.data())
    def read_modify_write(self, data: st.DataObject) -> None:
        who = data.draw(st.sampled_from(self.holders.with_arrays()))
        self.tell("read_modify_write", who, key=self.pick_one(data, who))

    @precondition(lambda self: self.holders.arrays())
    @rule(data=st.data(), others_read=st.booleans())
    def free(self, data: st.DataObject, others_read: bool) -> None:
        """Others still have it, and may be reading it. That the program frees it is nothing to them."""
        key = self.pick_one(data)
        readers = self.holders.of(key)[1:] if others_read else []
        whole = Step("read", {"key": key, "start": 0, "step": 1})
        self.tell_all({PROGRAM: Step("free", {"key": key}), **dict.fromkeys(readers, whole)})
        self.holders.drop(PROGRAM, key)
        self.forget_what_is_gone()

    @precondition(lambda self: self.holders.arrays())
    @rule(data=st.data(), advice=st.sampled_from(ADVICE))
    def advise(self, data: st.DataObject, advice: str) -> None:
        key, start = self.pick(data)
        self.tell("advise", key=key, start=start, advice=advice)

    @precondition(lambda self: self.holders.arrays())
    @rule(data=st.data())
    def pin_and_write(self, data: st.DataObject) -> None:
        self.tell("pin_and_write", key=self.pick_one(data))

    @precondition(lambda self: len(self.holders.arrays()) > 1)
    @rule()
    def many_threads(self) -> None:
        self.tell("many_threads")

    def may_commit(self, pages: int) -> bool:
        """Whether what is left of the nodes, if one dies, can hold so many pages more."""
        return sum(-(-size // self.page) for size in self.sizes.values()) + pages <= self.most_pages

    def keep(self, size: int) -> None:
        self.sizes[self.next] = size
        self.holders.take(PROGRAM, self.next)
        self.next += 1

    def pick_one(self, data: st.DataObject, who: int = PROGRAM) -> int:
        return data.draw(st.sampled_from(self.holders.arrays(who)))

    def pick(self, data: st.DataObject, who: int = PROGRAM) -> tuple[int, int]:
        """An array, and a place in it."""
        key = self.pick_one(data, who)
        return key, data.draw(st.integers(0, self.sizes[key] - 1))

    def forget_what_is_gone(self) -> None:
        """Where the program is alone, what it has freed is free."""
        if len(self.holders) == 1:
            self.sizes = {key: size for key, size in self.sizes.items() if key in self.holders.arrays()}

    # -- what children and guests do ----------------------------------------------------------------------------------

    @precondition(lambda self: self.holders.arrays() and not self.shares and not self.lossy)
    @rule(seed=st.integers(0, 1000))
    def diverge(self, seed: int) -> None:
        """The program forks a child that has the arrays for itself."""
        self.tally.forks += 1
        self.tell("diverge", seed=seed)

    @precondition(lambda self: self.holders.children < MOST_CHILDREN and self.forking())
    @rule(data=st.data(), others_verify=st.booleans())
    def fork(self, data: st.DataObject, others_verify: bool) -> None:
        """Any process may, while the others are at work."""
        parent = data.draw(st.sampled_from(self.forking()))
        others = [who for who in self.holders if who != parent] if others_verify else []
        self.begin_child(parent, others)

    def forking(self) -> list[int]:
        """The processes whose children share what they have. Those of guests always do."""
        return [who for who in self.holders if who != PROGRAM or self.shares]

    def begin_child(self, parent: int, others: list[int]) -> None:
        """Let a process fork, while others verify what they have."""
        self.tally.forks += 1
        child = self.holders.fork(parent)
        with self.failing_loudly():
            self.hear(self.program.fork(parent, child, dict.fromkeys(others, Step("verify", {}))))

    @precondition(lambda self: self.holders.guests < MOST_GUESTS)
    @rule()
    def invite(self) -> None:
        self.tally.guests += 1
        self.begin_holder(guest=True)

    def begin_holder(self, *, guest: bool) -> None:
        """Start a program that has nothing."""
        with self.failing_loudly():
            self.program.start(self.holders.begin(guest=guest), self.twins.name, lossy=self.lossy, page=self.page)

    @precondition(lambda self: self.holders.senders())
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """Send an array to a process that may or may not have it, or have made and freed it."""
        sender = data.draw(st.sampled_from(self.holders.senders()))
        key = data.draw(st.sampled_from(self.holders.sendable(sender)))
        to = data.draw(st.sampled_from(self.holders.receivers(sender)))
        self.hand_over(sender, key, to)

    def hand_over(self, sender: int, key: int, to: int) -> None:
        """One process has it then, and the other still has it."""
        shared = self.tell("share", sender, key=key)
        self.tell_handle(to, "receive", key, shared)
        self.note_sent(sender, key, to, handle=shared is not None)

    def note_sent(self, sender: int, key: int, to: int, *, handle: bool) -> None:
        """A process has an array from now on, which it does not look at if there was no handle to be sent."""
        for who in (sender, to):
            self.holders.take(who, key, handle=handle)

    def tell_handle(self, to: int, what: str, key: int, shared: tuple[int, str] | None) -> None:
        """Let a process have a handle, or know that there is none: no room for that array, or nobody to share it."""
        if shared is None:
            self.tell("refuse", to, key=key)
        else:
            self.tell(what, to, key=key, first=shared[0], handle=shared[1])

    @precondition(lambda self: self.holders.arrays() and len(self.holders) > 1)
    @rule(data=st.data())
    def send_too_late(self, data: st.DataObject) -> None:
        """The program frees what it has just sent: then it is gone, or somebody else still has it."""
        to = data.draw(st.sampled_from(self.holders.receivers(PROGRAM)))
        key = self.pick_one(data)
        shared = self.tell("share", key=key)
        self.tell("free", key=key)
        self.tell_handle(to, "receive" if key in self.holders.arrays(to) else "glance", key, shared)
        self.holders.drop(PROGRAM, key)
        self.forget_what_is_gone()

    @precondition(lambda self: self.holders.others_with_arrays())
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        """A child or a guest has no use for an array any more."""
        who = data.draw(st.sampled_from(self.holders.others_with_arrays()))
        key = self.pick_one(data, who)
        self.tell("free", who, key=key)
        self.holders.drop(who, key)

    @precondition(lambda self: any(len(self.holders.of(key)) > 1 for key in self.sizes))
    @rule(data=st.data())
    def at_once(self, data: st.DataObject) -> None:
        """All who have an array write to the same pages of it."""
        key = data.draw(st.sampled_from([key for key in self.sizes if len(self.holders.of(key)) > 1]))
        self.add_at_once(key)

    def add_at_once(self, key: int) -> None:
        self.tell_all(
            {who: Step("add", {"key": key, "lane": lane % LANES}) for lane, who in enumerate(self.holders.of(key))}
        )

    @precondition(lambda self: len(self.holders) > 1)
    @rule(data=st.data(), how=st.sampled_from(["end", "vanish", "kill"]))
    def dismiss(self, data: st.DataObject, how: str) -> None:
        """A child or a guest ends."""
        self.end_holder(data.draw(st.sampled_from(self.holders.others())), how)
        self.await_processes()

    @precondition(lambda self: self.holders.others_with_arrays())
    @rule(data=st.data(), kind=st.sampled_from(KINDS), milliseconds=st.integers(0, 10))
    def kill_a_writer(self, data: st.DataObject, kind: str, milliseconds: int) -> None:
        """A child or a guest is killed while it writes: each byte is then the old one or the new one."""
        who = data.draw(st.sampled_from(self.holders.others_with_arrays()))
        key, start = self.pick(data, who)
        part = {"key": key, "start": start, "stop": data.draw(st.integers(start, self.sizes[key])), "kind": kind}
        self.tell_all({who: Step("write", part)}, killed=who, milliseconds=milliseconds)
        self.holders.end(who)
        for heir in self.holders.of(key)[:1]:
            self.tell("adopt", heir, **part)
        self.await_processes()

    @precondition(lambda self: len(self.holders) > 1)
    @rule(data=st.data(), milliseconds=st.integers(0, 10))
    def kill_a_reader(self, data: st.DataObject, milliseconds: int) -> None:
        """A child or a guest is killed while all others are at work, too."""
        killed = data.draw(st.sampled_from(self.holders.others()))
        self.tell_all(dict.fromkeys(self.holders, Step("verify", {})), killed=killed, milliseconds=milliseconds)
        self.holders.end(killed)
        self.await_processes()

    def end_holder(self, who: int, how: str) -> None:
        with self.failing_loudly():
            self.program.dismiss(who, how)
        self.holders.end(who)

    def await_processes(self) -> None:
        """What only those had who are gone now is given back."""
        self.tell("await_processes", count=sum(self.tell("attachments", who) for who in self.holders))
        self.forget_what_is_gone()

    # -- what processes do to themselves -----------------------------------------------------------------------------

    @rule(data=st.data(), how=st.sampled_from(["close", "replace"]))
    def lose_descriptors(self, data: st.DataObject, how: str) -> None:
        """Any process closes what it does not know, as daemons do, and opens files of its own."""
        who = data.draw(st.sampled_from(list(self.holders)))
        self.is_cut_off |= who == PROGRAM
        self.tally.descriptors_lost += 1
        self.tell("lose_descriptors", who, how=how)

    @precondition(lambda self: len(self.holders) > 1)
    @rule(data=st.data(), others_verify=st.booleans())
    def execute(self, data: st.DataObject, others_verify: bool) -> None:
        """A child or a guest runs itself anew in its place: it has nothing then, and what it had is given back."""
        who = data.draw(st.sampled_from(self.holders.others()))
        self.run_anew(who, [other for other in self.holders if other != who] if others_verify else [])
        self.holders.renew(who)
        self.tell("meet", who, directory=self.twins.name, lossy=self.lossy, page=self.page)
        self.await_processes()

    def run_anew(self, who: int, others: list[int]) -> None:
        """Let a process run its program anew, while others verify what they have."""
        with self.failing_loudly():
            self.hear(self.program.execute(who, dict.fromkeys(others, Step("verify", {}))))
        self.tell("find_remains", who)

    @precondition(lambda self: not self.has_run_replaced)
    @rule(seed=st.integers(0, 1000))
    def run_replaced(self, seed: int) -> None:
        """Beside all that, a program of ``thermocline run`` runs itself anew in its place, and so does a child of it.

        Once in an example: it takes as long as many other steps.
        """
        self.has_run_replaced = True
        self.tally.executions += 2
        with self.failing_loudly():
            run_replaced(self.directory.name, spec_of(self.page, "store"), self.page, seed, self.kills)

    @rule(
        data=st.data(),
        limit=st.sampled_from(LIMITS),
        room=st.integers(0, 63),
        pages=st.integers(1, 40),
        seed=st.integers(0, 1000),
        others_verify=st.booleans(),
    )
    def within(self, data: st.DataObject, limit: str, room: int, pages: int, seed: int, others_verify: bool) -> None:
        """Any process sets itself a limit for a while, and goes on."""
        who = data.draw(st.sampled_from(list(self.holders)))
        possible = WITHIN + (() if limit in OF_MEMORY else WITHIN_PLENTY)
        if who == PROGRAM and self.may_commit(pages):
            possible += WITHIN_OF_PROGRAM
        does = data.draw(st.lists(st.sampled_from(possible), min_size=1, max_size=4, unique=True))
        others = [other for other in self.holders if other != who] if others_verify else []
        step = Step("within", {"limit": limit, "room": room, "does": does, "pages": pages, "seed": seed})
        self.note_refusals(self.tell_all({who: step, **dict.fromkeys(others, Step("verify", {}))})[who])

    def note_refusals(self, refused: list[str] | None) -> None:
        """See that a child which was not served has said so."""
        self.tally.limits += 1
        self.tally.refusals += len(refused or ())
        if any(each.startswith("fork: UnsupportedError") for each in refused or ()):
            with self.failing_loudly():
                assert self.program.has_said_that_a_child_is_not_served(self.began), refused

    @precondition(lambda self: self.holders.senders())
    @rule(data=st.data(), limit=st.sampled_from(LIMITS), room=st.integers(0, 63))
    def send_to_the_limited(self, data: st.DataObject, limit: str, room: int) -> None:
        """Send an array to a process that may have little: if it cannot take it, it can when it may have more."""
        sender = data.draw(st.sampled_from(self.holders.senders()))
        key = data.draw(st.sampled_from(self.holders.sendable(sender)))
        to = data.draw(st.sampled_from(self.holders.receivers(sender)))
        shared = self.tell("share", sender, key=key)
        if shared is None:
            self.tell("refuse", to, key=key)
        else:
            first, handle = shared
            arguments = {"limit": limit, "room": room, "key": key, "first": first, "handle": handle}
            self.note_refusals(self.tell("receive_within", to, **arguments))
        self.note_sent(sender, key, to, handle=shared is not None)

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
        if PROGRAM in self.holders:
            self.books = books = self.tell("books")
            with self.failing_loudly():
                deaths = books["pager"]["starts"] - 1
                assert deaths <= self.tally.kills - self.kills_then + self.deaths, "a pager has died by itself"
                assert books["arena"]["peak_resident"] <= DRAM * self.page
                for node in books["nodes"].values():
                    assert 0 <= node["used"] <= node["peak"] <= node["capacity"], node

    def teardown(self) -> None:
        """Verify everything, and end: the program and whoever shares its memory, in whatever order.

        An example may end in the middle of a rule, when hypothesis has no more choices to give; that is no failure.
        """
        if hasattr(self, "program") and self.program.running:
            self.tell_all(dict.fromkeys(self.holders, Step("verify", {})))
            self.capacities_hold()
            if self.last == "close":
                for who in self.holders.others():
                    self.end_holder(who, "vanish" if who % 2 else "end")
                self.await_processes()
                self.tell("close")
                self.end_cut_off()
            else:
                self.outlive_program()
            with self.failing_loudly():
                self.program.await_helpers()
                assert "Traceback" not in self.program.said(self.began), "a process has met an exception"
                assert not os.listdir(self.directory.name), "files are left behind"
                assert not (wrong := what_is_wrong_in(Path(self.twins.name))), wrong
            kills = self.tally.kills - self.kills_then
            self.tally.deaths_injected += max(self.books["pager"]["starts"] - 1 - kills, 0)
            self.tally.disturbed_calls += self.books["injected"]
        if hasattr(self, "program"):
            self.directory.cleanup()
            self.twins.cleanup()

    def end_cut_off(self) -> None:
        """A memory that has no descriptors here is served until its program ends."""
        if self.is_cut_off:
            with self.failing_loudly():
                self.program.dismiss(PROGRAM, "end")

    def outlive_program(self) -> None:
        """The program gives the memory up, or ends; the others go on, fork and send, then one after the other ends."""
        self.tally.programs_outlived += len(self.holders) > 1
        if self.last == "leave":
            self.tell("leave")
            self.end_cut_off()
            self.holders.end(PROGRAM)
        elif self.last == "execute":
            self.run_anew(PROGRAM, self.holders.others())
            self.holders.end(PROGRAM)
        else:
            self.end_holder(PROGRAM, self.last)
        if len(self.holders):
            first, *others = self.holders
            self.begin_child(first, others)
        for sender in self.holders.senders()[:1]:
            self.hand_over(sender, self.holders.sendable(sender)[0], self.holders.receivers(sender)[0])
        for number, who in enumerate(self.holders):
            self.program.plan = [(number, "kill")]
            self.tell_all(dict.fromkeys(self.holders, Step("verify", {})))
            for key in self.holders.arrays(who):
                self.add_at_once(key)
            self.end_holder(who, ("end", "kill", "vanish")[number % 3])

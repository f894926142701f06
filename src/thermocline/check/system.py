"""A system: one machine with its program and its pager, all of whose next steps are known.

A schedule is a list of steps. The same schedule always leads to the same state, which is how the search goes back to
a state that it has left.
"""

from __future__ import annotations

from typing import NamedTuple

from thermocline.check.configuration import Configuration
from thermocline.check.digest import Describer, digest
from thermocline.check.footprint import Footprint
from thermocline.check.invariants import check_rest, check_state, check_throttled
from thermocline.check.machine import Machine
from thermocline.check.phrases import phrase
from thermocline.check.program import Program, Thread
from thermocline.check.task import Task
from thermocline.check.violation import Violation
from thermocline.protocol.migrate import Design
from thermocline.protocol.mm import Policy
from thermocline.protocol.page import POISONED, RESIDENT, State
from thermocline.protocol.reclaim import kswapd
from thermocline.protocol.recovery import recover, slots_in_use

#: Actors that are neither a task nor a thread.
CRASH, PATIENCE, DEATH = "SIGKILL", "patience", "death"
_RECOVERY = "recovery"


class Step(NamedTuple):
    """The actor that takes a step, and which of its choices."""

    actor: str
    choice: int = 0


class System:
    """A configuration, set up and ready to run under a design."""

    def __init__(self, configuration: Configuration, design: Design, footprint: Footprint) -> None:
        self.configuration = configuration
        #: Whether :meth:`take` says what happened.
        self.verbose = False
        self.footprint = footprint
        self.machine = Machine(configuration.layout, Policy(design, configuration.discard_clean, 0), footprint)
        for placed in configuration.placed:
            self.machine.place(placed.page, placed.node, shadow=placed.shadow)
        self.machine.failing_copies.update(configuration.refused)
        self.machine.mortal = configuration.mortal
        self.machine.dying.update(configuration.freed)
        self.program = Program(self.machine, configuration.scripts, configuration.children)
        self.program.family.may_abandon = configuration.may_abandon
        self._deaths = configuration.deaths
        self._describer = Describer(self.machine, self.program)
        self._failures = configuration.failures
        self._crashes = configuration.crashes
        #: Pages that the next pager gives up. It is told so until one has done it.
        self._doomed = configuration.doomed
        #: The task that has not come to a point yet where another may take its place.
        self._running = ""
        self._unanswered = dict.fromkeys(configuration.requests)
        self._begin(dict(configuration.reclaimers))

    def _begin(self, reclaimers: dict[str, object]) -> None:
        """Start what a pager runs of its own accord, and what it was asked for."""
        machine, configuration = self.machine, self.configuration
        if configuration.kswapd:
            for node in machine.nodes:
                if machine.mm.path.next_node(node.index) is not None:
                    machine.settle_task(machine.spawn(f"kswapd of {node.name}", kswapd(machine.mm, node)))
        for name in reclaimers:
            machine.spawn(name, configuration.reclaimers[name](machine))
        for name in self._unanswered:
            self._request(name)
        self.program.family.ask_again()

    def _request(self, name: str) -> None:
        def answered(_: object) -> None:
            self.footprint.write("requests")
            del self._unanswered[name]

        self.machine.spawn(name, self.configuration.requests[name](self.machine), done=answered)

    # -- steps --------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Whether nothing will ever happen again."""
        return self.at_rest and all(thread.finished for thread in self.program.threads.values())

    @property
    def at_rest(self) -> bool:
        """Whether no task can run: only the program can go on."""
        return all(task.waits_for for task in self.machine.tasks.values()) and not self.machine.throttled

    def steps(self) -> list[Step]:
        """All that can happen next, but for a kill."""
        found: list[Step] = []
        for thread in self.program.threads.values():
            if self.program.may_step(thread):
                found += [Step(thread.name, choice) for choice in range(thread.choices)]
        if self._deaths:
            found += [Step(DEATH, child) for child in self.program.family.deaths()]
        runnable = False
        recovering = _RECOVERY in self.machine.tasks
        for task in self.machine.tasks.values():
            if task.waits_for or (recovering and task.name != _RECOVERY):
                continue
            if not self._running or task.name == self._running:
                runnable = True
                found += [Step(task.name, choice) for choice in range(self._outcomes(task.name))]
        if not runnable and self.machine.throttled:
            found.append(Step(PATIENCE))
        return found

    def _outcomes(self, name: str) -> int:
        return self.machine.outcomes(self.machine.tasks[name]) if self._failures else 1

    @property
    def can_crash(self) -> bool:
        """Whether the pager may be killed here."""
        return self._crashes > 0

    def take(self, step: Step) -> str:
        """Take a step -> what happened, in words.

        Raises
        ------
        Violation
            It was a wrong one.
        """
        self.footprint.clear()
        if step.actor == CRASH:
            return self._crash()
        if step.actor == PATIENCE:
            self.footprint.write_all()
            self.machine.retry_throttled()
            return "nothing else can run: allocations look for room again"
        if step.actor == DEATH:
            self.footprint.write_all()
            self._deaths -= 1
            self.program.family.end(step.choice)
            return f"child {step.choice} dies"
        thread = self.program.threads.get(step.actor)
        if thread is not None:
            did = self.program.step(thread, step.choice)
            if thread.killed and thread.current is not None and not self._may_be_killed(thread):
                raise Violation("lost", f"{thread.name} gets a SIGBUS in page {thread.current.page}")
            return did
        return self._run_task(step)

    def _may_be_killed(self, thread: Thread) -> bool:
        """Whether the SIGBUS that a thread has got is one that it may get."""
        if self.configuration.may_lose or thread.current is None:
            return self.configuration.may_lose
        return self.machine.entry(thread.current.page).state == POISONED  # which is checked for itself

    def _run_task(self, step: Step) -> str:
        task = self.machine.tasks[step.actor]
        effect = task.effect
        ends = task.job is not None
        turns = self._step(task, step)
        if task.finished and task.name == _RECOVERY:
            self.footprint.write_all()
            self._doomed = ()
            self.program.pager_listens = True
            self.program.wake_all()
            self._begin({})
        if not self.verbose:
            return ""
        did = "ends what it began" if ends else "goes on"
        if effect is not None:
            did = phrase(effect, self.machine, None if turns and not task.finished else self.machine.answer)
        return f"{did}{', and has ended' if task.finished else ''}"

    def _step(self, task: Task, step: Step) -> bool:
        if step.choice:
            self._failures -= 1
        turns = self.machine.step(task, step.choice)
        if self.configuration.cooperative:
            self.footprint.write("processor")
            self._running = "" if turns else task.name
        return turns

    def _crash(self) -> str:
        """Kill the pager. Its successor knows what is shared, and begins by recovering it."""
        self.footprint.write_all()
        self._crashes -= 1
        self.program.pager_listens = False
        self._running = ""
        machine = self.machine
        machine.kill()
        pages = range(machine.layout.pages)
        slots = slots_in_use(machine.mm, pages)
        for node, store in machine.stores.items():
            store.recover(slots.get(node, ()))
        arena = machine.arena
        whereabouts = arena.whereabouts if len(machine.layout.mapped) > 1 else lambda page: None
        machine.spawn(
            _RECOVERY, recover(machine.mm, pages, machine.presence, machine.slot_size, self._doomed, whereabouts)
        )
        return "the pager is killed; its successor begins"

    # -- judgements ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise a :class:`Violation` if the state is wrong."""
        check_state(self.machine)
        self._check_poisoned()
        if self.machine.throttled and not self.machine.runnable():
            check_throttled(self.machine)
        if self.at_rest:
            check_rest(self.machine, self.program)
            self._check_pins()

    def _check_poisoned(self) -> None:
        for page in range(self.machine.layout.pages):
            if self.machine.entry(page).state == POISONED and page not in self.configuration.may_poison:
                raise Violation("lost", f"page {page} is given up, and its bytes could be had")

    def _check_pins(self) -> None:
        for page in self.configuration.pinned:
            state = self.machine.entry(page).state
            if state != RESIDENT:
                raise Violation("pin", f"page {page} is pinned, and it is {State(state).name}")

    def digest(self) -> bytes:
        """Stands for the state."""
        return digest((self._describer.state(), self._running, *self._left()))

    def surviving_digest(self) -> bytes:
        """Stands for what a killed pager would leave behind."""
        return digest((self._describer.surviving(), *self._left()))

    def _left(self) -> tuple[object, ...]:
        """What may still go wrong, and what is still asked for."""
        family = self.program.family
        asked = (*self._unanswered, *family.unanswered, family.under_way)
        return self._failures, self._crashes, self._deaths, self._doomed, asked

"""A guard: operations one at a time, each whole or not at all, and leases that give back what they are of."""

import gc
import os
import threading
from collections.abc import Callable

import pytest

from structures import in_c, in_python
from thermocline import ThermoclineError
from thermocline.live import channel, descriptor, guard, interrupts, mapped, ring
from thermocline.live.guard import BusyError, Guard, Lease, Teardown, end, value_of
from thermocline.native import cpython


class Late(BaseException):
    """As a signal handler raises it."""


class Desk:
    """What a guard guards: numbers that are given out. What is under it fails as often as it is told to."""

    def __init__(self) -> None:
        self.guard = Guard(self.settle, self.repair)
        self.out: set[int] = set()
        self.undone: list[int] = []
        self.repairs = 0
        self.failures = 0
        self.during: Callable[[], object] = lambda: None

    def give(self, number: int) -> int:
        self.guard.journal.append((self.undo, number))
        self.out.add(number)
        self.during()
        return number

    def undo(self, number: int) -> None:
        self.out.discard(number)
        self.undone.append(number)

    def fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise Late

    def repair(self) -> None:
        self.fail()
        self.repairs += 1

    def settle(self) -> None:
        self.fail()
        while self.guard.released:
            self.out.discard(self.guard.released[0])
            del self.guard.released[0]

    def lease(self, number: int) -> Lease:
        lease = self.guard.lease(self.give, number)
        assert lease is not None
        return lease


def let_come() -> None:
    """Run Python, so that the main thread raises what is on its way to it."""
    for _ in range(10):
        pass


def raise_late() -> None:
    raise Late


def test_structures_are_as_in_c() -> None:
    assert in_python(guard._Guarded) == in_c("tc_guarded_fields")
    assert in_python(interrupts.Errors) == in_c("tc_errors_fields")
    assert in_python(cpython.Functions) == in_c("tc_python_fields")
    assert in_python(ring._Ring) == in_c("tc_ring_fields")
    assert in_python(channel._Received) == in_c("tc_received_fields")
    assert in_python(descriptor.Identity) == in_c("tc_identity_fields")
    assert in_python(mapped.Begun) == in_c("tc_stretch_fields")


def test_a_lease_gives_back_once() -> None:
    desk = Desk()
    first, second = desk.lease(1), desk.lease(2)
    assert (value_of(first), value_of(second), desk.out) == (1, 2, {1, 2})
    end(first)
    assert value_of(first) is None
    assert desk.out == {2}
    desk.lease(1)
    end(first)
    del first, second
    assert desk.out == set()
    assert desk.guard.run(lambda: 7) == 7
    assert desk.guard.lease(lambda: None) is None


def test_an_operation_that_raises_is_undone_and_its_exception_is_the_caller_s() -> None:
    desk = Desk()
    desk.during = raise_late
    with pytest.raises(Late):
        desk.guard.run(desk.give, 1)
    assert (desk.out, desk.undone, desk.repairs, desk.guard.journal) == (set(), [1], 1, [])
    with pytest.raises(Late):
        desk.guard.lease(desk.give, 2)
    let_come()
    assert (desk.out, desk.undone) == (set(), [1, 2])


def test_a_repair_that_is_interrupted_is_made_again() -> None:
    desk = Desk()
    desk.during = raise_late
    desk.failures = 3
    with pytest.raises(Late):
        desk.guard.run(desk.give, 1)
    let_come()  # of one type, one is enough
    assert desk.undone == [1] * 4
    assert desk.repairs == 1


def test_a_repair_that_fails_all_the_time_comes_before_the_next_operation() -> None:
    desk = Desk()
    desk.during = raise_late
    desk.failures = 20
    with pytest.raises(Late):
        desk.guard.run(desk.give, 1)
    assert desk.repairs == 0
    desk.during = lambda: None
    desk.failures = 0
    assert desk.guard.run(desk.give, 2) == 2
    assert (desk.repairs, desk.out) == (1, {2})


def test_what_comes_up_while_something_is_given_back_reaches_the_program_and_it_is_given_back() -> None:
    desk = Desk()
    lease = desk.lease(1)
    desk.failures = 3
    with pytest.raises(Late):
        del lease
        let_come()
    let_come()
    assert desk.out == set()
    assert interrupts.ERRORS == []


def test_a_lease_that_ends_within_an_operation_of_its_thread_is_settled_behind_it() -> None:
    desk = Desk()
    held = [desk.lease(1)]

    def drop() -> None:
        held.clear()
        assert desk.out == {1, 2}

    desk.during = drop
    kept = desk.lease(2)
    assert desk.out == {2}
    end(kept)


def test_a_thread_that_meets_itself_is_told() -> None:
    desk = Desk()
    told: list[BaseException] = []

    def meet() -> None:
        for call in (desk.guard.run, desk.guard.lease):
            with pytest.raises(BusyError, match="signal handler") as caught:
                call(lambda: 1)
            told.append(caught.value)

    desk.during = meet
    desk.guard.run(desk.give, 1)
    assert len(told) == 2
    assert isinstance(told[0], ThermoclineError)


def test_threads_wait_for_one_another_and_leases_do_not() -> None:
    desk = Desk()
    lease = desk.lease(1)
    inside, may_end, done = threading.Event(), threading.Event(), []

    def stay() -> None:
        inside.set()
        may_end.wait()

    first = threading.Thread(target=desk.guard.run, args=(stay,))
    first.start()
    inside.wait()
    second = threading.Thread(target=lambda: done.append(desk.guard.run(desk.give, 2)))
    second.start()
    end(lease)  # would wait for ever
    assert desk.out == {1}
    may_end.set()
    first.join()
    second.join()
    assert (done, desk.out) == ([2], {2})


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_the_guard_that_another_thread_was_in() -> None:
    desk = Desk()
    inside, may_end = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        may_end.wait()

    desk.during = stay
    thread = threading.Thread(target=desk.guard.run, args=(desk.give, 1))
    thread.start()
    inside.wait()
    child = os.fork()
    if not child:
        desk.during = lambda: None
        desk.guard.run(desk.give, 2)
        os._exit(0 if (desk.out, desk.undone) == ({2}, [1]) else 1)
    may_end.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert (desk.out, desk.undone) == ({1}, [])


def test_a_guard_lives_as_long_as_its_leases_and_no_longer() -> None:
    desk = Desk()
    out, lease = desk.out, desk.lease(1)
    del desk
    gc.collect()
    assert out == {1}
    del lease
    assert out == set()
    gc.collect()
    assert not any(isinstance(each, Desk) for each in gc.get_objects())


def test_a_teardown_goes_on_with_the_step_that_was_interrupted() -> None:
    steps: list[str] = []
    teardown = Teardown()
    failures = [Late()]

    def fail_once() -> None:
        if failures:
            raise failures.pop()
        steps.append("second")

    teardown.callback(steps.append, "third")
    teardown.callback(fail_once)
    teardown.callback(steps.append, "first")
    with pytest.raises(Late):
        teardown.close()
    teardown.close()
    teardown.close()
    assert steps == ["first", "second", "third"]

"""Outcomes that were never measured, for tests of whatever shows them."""

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

from thermocline.lab.outcome import Outcome, Times
from thermocline.report.glossary import DESIGNS, STATES, TEMPERATURES

NOTHING = Times(0, 0, 0, 0, 0, 0)


def times(values: Iterable[int]) -> Times:
    """The distribution of these times, in classes of an eighth of an octave."""
    ordered = sorted(values)
    if not ordered:
        return NOTHING
    classes: dict[int, int] = {}
    for value in ordered:
        octave = max(value.bit_length() - 4, 0)
        upper = (((value >> octave) + 1) << octave) - 1
        classes[upper] = classes.get(upper, 0) + 1
    last = len(ordered) - 1
    p50, p99, p999 = (ordered[min(int(len(ordered) * share), last)] for share in (0.5, 0.99, 0.999))
    return Times(len(ordered), sum(ordered), p50, p99, p999, ordered[-1], tuple(sorted(classes.items())))


def outcome(design: str = "batch", interpreter: str = "live", **changes: Any) -> Outcome:
    """An outcome in which nothing is remarkable."""
    plain = Outcome(
        interpreter=interpreter,
        design=design,
        state="full",
        temperature="hot",
        repeats=2,
        seconds=4.0,
        touches=100_000,
        stalls=times(range(10_000, 110_000, 100)),
        stall_p99=(108_000, 110_000),
        migrated=8_000,
        source_lock=times(range(20_000, 40_000, 100)),
        allocating=times(range(5_000, 10_000, 25)),
        lock_wait=NOTHING,
        cpu_ns=400_000_000,
        aborts=0,
        failures=12,
        refaults=1_000,
    )
    return replace(plain, **changes)


def ranked(p99s: Mapping[str, tuple[int, ...]], interpreter: str = "live", **changes: Any) -> list[Outcome]:
    """An outcome of each design, with these p99s of the stalls in the repeats; the pooled one is the largest."""
    return [
        outcome(
            design,
            interpreter,
            stalls=times([max(of_repeats, default=0)] * 100 if any(of_repeats) else []),
            stall_p99=of_repeats,
            repeats=len(of_repeats),
            **changes,
        )
        for design, of_repeats in p99s.items()
    ]


@cache
def everything() -> tuple[Outcome, ...]:
    """An outcome of every cell under both interpreters, such as one might measure; the same whenever it is asked."""
    return tuple(
        _drawn(random.Random(f"{interpreter} {cell}"), interpreter, cell)
        for interpreter in ("virtual", "live")
        for cell in product(STATES, TEMPERATURES, DESIGNS)
    )


def _drawn(draw: random.Random, interpreter: str, cell: tuple[str, str, str]) -> Outcome:
    """Most stalls wait for a copy, some behind an allocation, a few for a slow disk."""
    state, temperature, design = cell
    copy = {"discard": 180e3, "transactional": 25e3}.get(design, 60e3)
    behind = {"roomy": 8e3, "tight": 250e3, "full": 4e6, "failing": 30e3}[state]
    often = {"deferred": 0.3, "relock": 0.05, "discard": 0.02}.get(design, 0.01)
    if interpreter == "virtual":  # a model that is wrong about something
        behind *= {"prealloc": 3.0, "relock": 0.4}.get(design, 1.0)
    count = {"hot": 1500, "warm": 600, "cold": 60}[temperature]
    noise = 1.0 if interpreter == "virtual" else draw.uniform(0.85, 1.2)
    runs = []
    for _ in range(5 if interpreter == "live" else 1):
        own = noise if interpreter == "virtual" else noise * draw.uniform(0.9, 1.1)
        runs.append(
            [
                int(own * draw.lognormvariate(0, 0.5) * (copy + (behind if draw.random() < often else 0)))
                for _ in range(count)
            ]
        )
    pooled = times(value for run in runs for value in run)
    migrated = 0 if state == "failing" and design != "discard" else int(4_000 * noise) * len(runs)
    drawn = min(migrated, 300)
    waited = [int(behind * draw.random()) if design == "deferred" else 0 for _ in range(drawn)]
    held = times(int(copy) + wait for wait in waited)
    return outcome(
        design,
        interpreter,
        state=state,
        temperature=temperature,
        repeats=len(runs),
        seconds=2.1 * len(runs) / noise,
        touches=2_000_000 * len(runs),
        stalls=pooled,
        stall_p99=tuple(times(run).p99 for run in runs),
        migrated=migrated,
        source_lock=held,
        allocating=times(wait for wait in waited if wait),
        cpu_ns=int(migrated * 38_000 * noise),
        aborts=migrated // 7 if design == "transactional" else 0,
        failures=(500 if state == "failing" else draw.randrange(12)) * len(runs),
        refaults=pooled.count // 2,
    )

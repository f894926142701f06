"""The machine of ``machine.py`` for a while: ``python tests/soak/soak.py --minutes 10 [--seed N]``.

It prints its seed, and a line for each round of a design. A failure is made as small as hypothesis can (what depends
on the instant of a kill may not happen again), and printed with how to repeat it; before that, at once, come the steps
that were taken, and, if it was a hang, the stacks of all processes. The exit status is 1 then. Ctrl-C ends it at once.
"""

import argparse
import itertools
import random
import sys
import time
import traceback

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from machine import TieredArrays

from thermocline.protocol.migrate import DESIGNS

#: Of one round of one design.
EXAMPLES = 20
STEPS = 60


def settings_of(round_: int) -> settings:
    """Short examples find what is wrong everywhere, long ones what takes its time to go wrong."""
    return settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS * (1 + round_ % 3),
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


def run(design: str, seed: int, round_: int, blob: str = "") -> bool:
    """One round of a design, or the example that a blob stands for -> whether all was right."""
    machine = type("TieredArrays", (TieredArrays,), {"design": design, "failed_before": False})
    if blob:
        machine = hypothesis.reproduce_failure(hypothesis.__version__, blob.encode())(machine)
    else:
        machine = hypothesis.seed(seed)(machine)
    try:
        run_state_machine_as_test(machine, settings=settings_of(round_))
    except Exception:
        traceback.print_exc()
        print(
            f"\nTo repeat this round: python tests/soak/soak.py --design {design} --seed {seed} --round {round_}\n"
            f"or one example:       python tests/soak/soak.py --design {design} --round {round_} --blob BLOB\n"
            "with the bytes that @reproduce_failure is given above",
            file=sys.stderr,
            flush=True,
        )
        return False
    return True


def summary() -> str:
    """What was done so far."""
    tally = TieredArrays.tally
    return (
        f"{tally.examples} examples, {tally.steps} steps; forks {tally.forks}, guests {tally.guests}, killed of both "
        f"{tally.members_killed}, programs outlived {tally.programs_outlived}; descriptors closed "
        f"{tally.descriptors_lost}, run anew {tally.executions}, limits {tally.limits}, refusals "
        f"{tally.refusals}; pagers killed {tally.kills}, stopped "
        f"{tally.stops}, ended at points {tally.deaths_injected}; calls of stores disturbed {tally.disturbed_calls}; "
        f"pages lost and announced {tally.lost_pages}; wrong {tally.wrong}, hangs {tally.hangs}"
    )


def main() -> int:
    """Round after round, until time is over or something fails -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--design", choices=sorted(DESIGNS), help="one round of this design, and no more")
    parser.add_argument("--round", type=int, default=0)
    parser.add_argument("--blob", default="", help="one example, and no more")
    arguments = parser.parse_args()
    if arguments.blob and not arguments.design:
        parser.error("a blob is an example of one design; write --design, too")
    print(f"seed {arguments.seed}", flush=True)
    right = True
    try:
        if arguments.design:
            right = run(arguments.design, arguments.seed, arguments.round, arguments.blob)
        else:
            right = soak(arguments.minutes, arguments.seed)
    except KeyboardInterrupt:
        print("ended early", flush=True)
        right = not (TieredArrays.tally.wrong or TieredArrays.tally.hangs)
    finally:
        TieredArrays.stop_program()
        print(summary(), flush=True)
    return 0 if right else 1


def soak(minutes: float, seed: int) -> bool:
    """All designs in turn -> whether all was right."""
    begin = time.monotonic()
    for number in itertools.count():
        design = sorted(DESIGNS)[number % len(DESIGNS)]
        round_ = number // len(DESIGNS)
        if not run(design, seed + number, round_):
            return False
        passed = (time.monotonic() - begin) / 60
        print(f"{passed:5.1f} min  {design:<14} seed {seed + number} round {round_}: {summary()}", flush=True)
        if passed >= minutes:
            break
    return True


if __name__ == "__main__":
    sys.exit(main())

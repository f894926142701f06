"""What the page says to a reader who has not read the thread: what moves and why, the question, the designs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from thermocline.report.curves import mark, style
from thermocline.report.glossary import DESIGNS, STATES, TEMPERATURES, Design

QUESTION = """
<section id="question">
<h2>What moves, and why</h2>
<p>When memory runs short, the kernel <dfn>reclaims</dfn>: it looks for pages that have not been used for a while and
frees them. Such a page can be dropped, if a file has the same bytes, or written to swap. On a machine that has slower
memory below its DRAM there is a third way: the page is <dfn>demoted</dfn>, moved one node down, where it can be reached
without a disk.</p>
<p>A page that moves needs a place to move to, the <dfn>target</dfn>, which has to be allocated on the lower node. And
the page that moves, the <dfn>source</dfn>, has a lock: the task that holds it may move, fill or free the page, and all
others that need to do so, such as a thread that has just faulted on it, wait.</p>
<h2>The question</h2>
<p>In June 2020 the series <cite>Migrate Pages in lieu of discard</cite>, by Dave Hansen, Keith Busch and others, taught
reclaim to demote. Reclaim decides what becomes of a page while it holds the lock of that page, so the series allocated
the target under that lock. On the mailing list linux-mm, Greg Thelen asked what that costs other threads. A thread that
has nothing to do with reclaim but needs this page waits for its lock; and the lock is held during an allocation, which
may itself reclaim, give up the CPU, or meet the out-of-memory killer.</p>
<p>Three answers came up:</p>
<ul>
<li><strong>That wait is not new.</strong> If the page had been discarded instead, the same thread would take a fault
and wait for an allocation of its own. The latency only moves.</li>
<li><strong>Allocate one target before the lock.</strong> Then nothing is allocated under it.</li>
<li><strong>Do not migrate there at all.</strong> Put the pages on a list, unlock them, and migrate the list as a whole
afterwards.</li>
</ul>
<p>Linux 5.15 took the list. This page puts figures to all of the answers.</p>
</section>
"""

_MOVE = """
<p>All designs <em>move</em> a page in the same way: <b>unmap</b> it, so that writers wait in a fault, while readers go
on; <b>copy</b> it; <b>commit</b>, so that the page table names the new place; and <b>free</b> the old one: from then on
readers fault, too, and find the page in its new place. A thread that uses a mapped page needs no lock. When it faults
it needs the lock, and waits for the task that holds it.</p>
<p class="aside">In the bars below, time goes from left to right; widths are not to scale. The line below a bar says
when the lock of the source is held.</p>
"""

_EXPERIMENT = """
<p>A few threads that have nothing to do with reclaim read and write the pages of an array, and time every touch.
Meanwhile reclaim moves these pages to the node below. A touch that had to wait for its page is a <dfn>stall</dfn>. Each
design is run with the target node in each of these states,</p>
{states}
<p>and with pages that are</p>
{temperatures}
<p>There are two interpreters to run it. Both perform the same protocols, the same lines of code that decide what is
locked, allocated and moved, and when:</p>
<dl>
<dt>live</dt><dd>on the memory of a real process, with real faults and the clock on the wall: a measurement;</dd>
<dt>virtual</dt><dd>on a virtual clock, where each step takes what it was calibrated to take: a prediction.</dd>
</dl>
<p>Pages here are moved by a process in user space, not by the kernel, so look at how the times of the designs compare
rather than at the times themselves.</p>
"""


def designs_section(designs: Sequence[str], strangers: Sequence[str]) -> str:
    """What each design does, and the order of its steps."""
    cards = "".join(_card(design, DESIGNS.get(design), style(design, strangers)) for design in designs)
    return f'<section id="designs" class="wide"><h2>The designs</h2>{_MOVE}<div class="cards">{cards}</div></section>'


def experiment_section(states: Sequence[str], temperatures: Sequence[str]) -> str:
    """What the experiment does."""
    text = _EXPERIMENT.format(states=_terms(states, STATES), temperatures=_terms(temperatures, TEMPERATURES))
    return f'<section id="experiment"><h2>The experiment</h2>{text}</section>'


def _terms(names: Sequence[str], meanings: dict[str, str]) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(meanings.get(name, ''))}</dd>" for name in names)
    return f"<dl>{items}</dl>"


def _card(name: str, design: Design | None, number: int) -> str:
    heading = f"<h3>{mark(number)}{escape(name)}</h3>"
    if design is None:
        return f'<article class="card d{number}">{heading}</article>'
    return (
        f'<article class="card d{number}">{heading}<p class="after">{escape(design.after)}</p>'
        f"<p>{escape(design.text)}</p>{_steps(name, design)}</article>"
    )


def _steps(name: str, design: Design) -> str:
    """A bar of steps, and below it a line along those that hold the lock of the source."""
    columns = " ".join(f"minmax(0,{step.weight}fr)" for step in design.steps)
    bar = "".join(
        f'<li class="{step.kind}">{escape(step.does)}'
        f'<span class="unseen">{" (source locked)" if step.locked else " (source not locked)"}</span></li>'
        for step in design.steps
    )
    locks, column = "", 1
    for locked, together in groupby(_spans(design), key=lambda span: span):
        count = len(list(together))
        if locked:
            locks += f'<span style="grid-column:{column}/span {count}">locked</span>'
        column += count
    return (
        f'<ol class="steps" aria-label="Steps of {escape(name)}" style="grid-template-columns:{columns}">{bar}</ol>'
        f'<div class="locks" aria-hidden="true" style="grid-template-columns:{columns}">{locks}</div>'
    )


def _spans(design: Design) -> list[bool]:
    return [step.locked for step in design.steps]

"""The `check` interpreter: every interleaving of small configurations, searched for a wrong one.

It runs the very generators that move real memory, on an abstract machine: a page is two base pages of one version
number each, a node has one to three slots. Read :mod:`~thermocline.check.machine` first (what an effect does there),
then :mod:`~thermocline.check.invariants` (what must always hold) and :mod:`~thermocline.check.search` (how all
schedules are covered without running all of them).
"""

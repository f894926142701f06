"""The protocols: what Thermocline decides, as generators that perform nothing.

Read them in this order: :mod:`~thermocline.protocol.effects` (what a protocol may ask for),
:mod:`~thermocline.protocol.page` (where bytes are, and why a crash is harmless),
:mod:`~thermocline.protocol.fault` (a page comes up), :mod:`~thermocline.protocol.reclaim` and
:mod:`~thermocline.protocol.migrate` (a page goes down), :mod:`~thermocline.protocol.recovery`.

Nothing here does I/O, reads a clock, starts a thread, draws a random number or looks at the environment.
"""

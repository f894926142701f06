"""The experiment of the linux-mm thread: unrelated threads use pages while reclaim migrates them.

| file | what it is |
|---|---|
| experiment | which cells there are (design, state of the target, temperature), and what each does |
| prober | threads that touch pages and time every touch, in C, without the GIL |
| live, virtual | run a cell on real memory, and on a virtual clock |
| outcome | what came of a cell |
| comparison | live against virtual |
| calibration | what each step costs on this machine |
"""

"""The `virtual` interpreter: the same protocols on a virtual clock, at calibrated costs.

In which order to read it:

| file | what it is |
|---|---|
| costs | what each step takes, as `thermocline calibrate` writes it |
| clock | the pager's time, and the variation of costs |
| mapping | which touches go through without the pager |
| thread | a thread of the program: a trace of touches, thousands of hits at a time |
| program | all threads, the processors they share with the pager, their faults |
| child | a forked child: its threads, and its private view of the mapping |
| store, workers | what a page takes in a lower node, and the threads of slow ones |
| inbox | what reaches the pager at a known time |
| interpreter | what each effect does to mapping and clock |
| pager | the loop |
| client | clients that send requests |
| recorder, result | what happened, and what came of it |
| machine | all of it in one: `VirtualMemory` |

What is simulated is time and order, not bytes: of a page's contents there is known whether it was ever written, and
how well it compresses. The pager is one server. What it does to the mapping happens at the end of the system call that
does it; until then the program runs on as it was.

What is left out: trimming of released slots, and the processor time of workers and of clients.
"""

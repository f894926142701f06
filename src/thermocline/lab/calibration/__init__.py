"""What each step of tiering costs on this machine, measured where the pager of a live memory pays for it.

In which order to read these:

| file | what it is |
|---|---|
| assembly | all measurements, one after the other |
| samples | times of a step, and the cost that they come to |
| program | a process whose pages are served: the program of a calibration |
| mapping | what a pager does to a program's pages, and the way of a fault to it and back |
| loop | a pager's own work: its turns, its protocols, its workers |
| meter | how long some methods take while others use them |
| threads | what a thread of a program does without a fault |
| shelves | the stores |
| contents | what is in the pages that are stored |

The pager is the process that measures, and the program another one, as it is in a live memory.
"""

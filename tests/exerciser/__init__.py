"""Random operations on a mount, each result compared with a model in memory and with the machine's own file system.

`python -m tests.exerciser --folder DIR --seconds 600 --seed 1` runs it by hand; `--help` says more.

| module | what it holds |
|---|---|
| `operations.py` | what an operation is, and the hand that carries it out with system calls |
| `tree_model.py` | a tree of files in memory: what every operation must answer |
| `choice.py` | which operation comes next, from the seed and the model |
| `tree_program.py` | one program in a folder: chooses, carries out, compares |
| `file_program.py` | one program on one file: reads, writes, maps, truncates |
| `crew.py` | the programs as processes, in rounds |
| `run.py` | one run of them all |
| `faults.py` | what happens to the pool between rounds and in them |

What is not compared, because file systems may differ there: sizes of folders, blocks used, the order of names, access
times that reading changes, the numbers of statfs, and whether setting a file to the size that it has, or an attribute
to the value that it has, changes times. Everything runs as root: who may do what is the business of other tests.
"""

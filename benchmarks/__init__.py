"""Benchmarks: how fast and how small the library is, against its rivals and against what the machine could do.

Run ``python -m benchmarks --help``. The rooms:

* ``__main__.py``  the command line
* ``cases/``       one case a file: what is measured, on what, and the bars it is held to
* ``rivals/``      what users would pick instead
* ``problems.py``  models and arrays, made once and read by everyone
* ``worker.py``    one measured thing in a process of its own: time and memory
* ``harness.py``   starts workers, lets them take turns
* ``results.py``   rows, ratios, bars
* ``machine.py``   the machine's own rates, and what it is
* ``ours.py``      the library's calls, as they are measured
* ``tables.py``    tables and JSON; ``figures.py`` plots of growth

A new case is a file in ``cases/`` with a function ``run(bench) -> Report``, and a line in ``cases/__init__.py``.
"""

"""How fast the pool is, next to its peers: ``python -m tests.benchmarks``, or ``make bench``.

::

    peers      the pool and what it is compared with, behind one protocol
    measure    contests: alternate in rounds, and take the ratios per round
    tasks      what is timed
    rows       which contests there are, with their targets
    table      the results as text and as Markdown
"""

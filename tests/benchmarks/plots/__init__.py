"""How settings change speed: ``python -m tests.benchmarks.plots``, or ``make plots``.

::

    trials     what is timed
    sweeps     which settings are tried, in rounds; the numbers as JSON, one file per interpreter
    figures    the numbers as SVG
    tables     the numbers as Markdown

The results are in ``docs/explanation/performance/``. Figures and tables show every interpreter that
has been measured, so to measure another one redraws them for both.
"""

"""How far a map is.

From the top down::

    tracker   counts what has ended, and has it shown by the thread that takes the results
    displays  where it is shown: a function, a bar of tqdm or rich, text
    text      one line of text
"""

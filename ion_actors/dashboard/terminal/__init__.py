"""``python -m ion_actors top``: what a program does now, in a terminal.

From the top down, each importing only from below::

    command   the arguments, the texts for mistakes, and the exit codes
    live      the view that stays, with its keys
    keyboard  single keys of a terminal
    screen    lines in colours; needs rich
    layout    the report in lines
    report    what is to be told of a snapshot: a pure function
    words     ages, numbers and places as people read them
"""

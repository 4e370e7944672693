"""Look inside a running program.

::

    actions   what somebody who looks may do: cancel, resize, pause, drain, replay
    overview  what there is in the process at one moment: ion_actors.snapshot()
    trees     supervision trees at one moment
    letters   keeps dead letters while somebody may look at them
"""

"""The picture side of the examples: nothing here knows about pools.

``samples`` finds photographs, ``inbox`` waits for them in a folder, ``styles`` makes renditions of
one, ``sheet`` lays them out.
"""

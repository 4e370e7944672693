"""The picture side of the thumbnails example: nothing here knows about pools.

``samples`` finds photographs, ``styles`` makes renditions of one, ``sheet`` lays them out.
"""

"""The data side of the csv_to_sqlite example: nothing here knows about pools.

``source`` reads rows of text, ``schema`` makes values of them and finds the bad ones, ``store``
keeps both in SQLite.
"""

"""A program that uses pools of all kinds for as long as it is told, and throws everything at them.

``make soak`` runs it. Modules:

- ``plan``: what happens, drawn from a seed; pure
- ``books``: what has to be true afterwards: outcomes, counts, flat curves; pure
- ``errands``: what the tasks do
- ``blows``: what strikes a pool and the process from outside
- ``submitting``: one submitter, which does its part of a plan
- ``play``: one round: a pool's life, with its submitters
- ``residents``: pools that live as long as the program
- ``gauges``: memory, descriptors, threads and children, as they were after each round
- ``figure``: those numbers, drawn (if matplotlib is there)
"""

"""Faults: what may happen to processes, the database, the network and the clock, and what must hold all the same.

The everyday ones are in ``tests/process``. Stories that take longer than ten seconds are marked ``long``.
"""

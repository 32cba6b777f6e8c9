"""The parts of the soak: a load, a fleet of workers, faults, and what must hold at the end. Read ``benchmarks/soak.py``."""

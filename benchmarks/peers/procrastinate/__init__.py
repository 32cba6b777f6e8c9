"""procrastinate: one job per call of a function in the database."""

"""``manage.py jobs bench``: what enqueueing and running jobs takes on the project's own database and machine.

- ``bodies``: the jobs that are run, declared while the bench runs only;
- ``measures``: what is measured, one function each, and the table of them;
- ``run``: the repetitions, in a sandbox (``models/sandbox.py``), and what ends them;
- ``report``: the figures as a table and as JSON.

The project's middleware and duties are left out. Receivers of its signals are called, for jobs that are not its own.
"""

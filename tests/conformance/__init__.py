"""Django's own tests of its tasks framework, run against our backends.

They are in Django's source distribution and not in its wheel. ``fetch`` downloads them when they are needed first and keeps
them in ``.tests/``; nothing of them is part of this repository. ``test_conformance`` says which of them run on what,
which are left out and why, and states anew what Django's say about its dummy backend only.
"""

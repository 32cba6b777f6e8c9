"""Next releases of django_jobs, as far as a deploy can tell: other models, and migrations that this release does not have.

As an app it comes after ours and changes our models; ``settings.py`` is for the processes that have the next release.
"""

"""A Django app with one table, for the jobs that use the ORM."""

"""django_jobs, from this checkout, in the environment of the benchmark itself."""

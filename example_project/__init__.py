"""A small shop that imports orders with background jobs: the demo of django_jobs."""

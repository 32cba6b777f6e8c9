"""How fast django_jobs and its peers are, on one throwaway PostgreSQL. Start with ``__main__.py``."""

"""``make demo``: the shop with a web server, a worker and an embedded PostgreSQL. Begin with ``__main__.py``."""

"""Where a worker runs jobs: ``threads`` for plain functions, ``event_loop`` for ``async def``."""

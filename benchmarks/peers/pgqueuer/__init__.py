"""pgqueuer: asyncio on asyncpg."""

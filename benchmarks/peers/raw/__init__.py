"""No queue at all: the least that PostgreSQL and psycopg need."""

"""dj_queue: Solid Queue for Django."""

"""Tests with real ``manage.py runworker`` processes."""

"""A plugin's duty that ends its thread once the test has opened a gate; ``settings_with_a_dying_duty`` names it."""

from tests.hostile_jobs import Death
from tests.process.ledger import gate_is_open


def die() -> None:
    """Do nothing until the gate is open."""
    if gate_is_open("duty"):
        raise Death

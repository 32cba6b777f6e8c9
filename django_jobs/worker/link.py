"""What a worker tells its supervisor. Free of the ORM: a child process imports it before Django is set up."""


class Link:
    """The line to a supervisor. This one leads nowhere: the worker is alone."""

    def pulse(self) -> None:
        """Say that the worker's loops advance."""

    def hint_due(self) -> None:
        """Pass on that a scheduled job may be due."""

    def say_drained(self) -> None:
        """Say that a burst has ended: there is nothing left to do."""

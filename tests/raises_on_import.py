"""A module of a project that cannot be imported."""

raise RuntimeError("this module is broken")

"""The migrations of this release, and one more."""

"""oban: the Python port of the Elixir job queue."""

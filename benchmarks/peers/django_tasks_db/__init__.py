"""django-tasks-db: the reference backend of the tasks framework."""

"""An index more, which can take long to make."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("django_jobs", "0001_initial")]
    operations = [migrations.AddIndex("job", models.Index(fields=["task_path"], name="next_index"))]

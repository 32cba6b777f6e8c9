"""All that a next release may do to our tables while this one runs: see docs/deploys.md."""

from __future__ import annotations

from django.db import migrations, models

_TABLES = ("worker", "queue", "job", "attempt", "result", "lease")


class Migration(migrations.Migration):
    dependencies = [("django_jobs", "0001_initial")]
    operations = [
        *[migrations.AddField(table, "weight", models.IntegerField(db_default=7)) for table in _TABLES],
        migrations.AddField("job", "note", models.TextField(null=True)),
        migrations.AddIndex("job", models.Index(fields=["task_path"], name="next_index")),
        migrations.CreateModel(
            "Extra", [("id", models.BigAutoField(primary_key=True)), ("name", models.CharField(max_length=20))]
        ),
    ]

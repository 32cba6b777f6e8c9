"""What reaches workers that run: a queue that moves to others, a changed setting, a pause that ends."""

from __future__ import annotations

import pytest
from django.utils import timezone

from django_jobs.models import Job, Queue
from django_jobs.models.backlog import backlogs
from django_jobs.states import JobState
from tests import jobs
from tests.processes import Command, wait_until

from .conftest import Start
from .ledger import Ledger
from .observe import PATIENCE, keep_busy_and_claim_ahead, row, state_of, wait_for_state, wait_until_finished, worker_of
from .test_options import wait_until_the_worker_has_looked

pytestmark = pytest.mark.slow


def started_on(job: object, command: Command) -> bool:
    return row(job).worker_id == worker_of(command).worker_id


def test_a_queue_that_gets_other_tags_moves_and_running_jobs_finish_where_they_are(
    start: Start, ledger: Ledger
) -> None:
    Queue.objects.declare("default", tags=["zone=a"])
    here, there = start("--tag=zone=a"), start("--tag=zone=b")
    held = jobs.hold.enqueue()
    wait_until(lambda: ledger.count("begin") == 1, timeout=PATIENCE, message="the job to begin")

    Queue.objects.declare("default", upsert=True, tags=["zone=b"])
    for command in (here, there):
        wait_until_the_worker_has_looked(command)
    after = jobs.touch.enqueue_many([((), {})] * 20)
    wait_until_finished(after)
    ledger.open_gate()
    wait_for_state(held, JobState.SUCCEEDED)

    assert all(started_on(job, there) for job in after)
    assert started_on(held, here)
    assert row(held).attempt == 1


def test_jobs_that_wait_where_a_queue_has_moved_from_are_given_back(start: Start, ledger: Ledger) -> None:
    Queue.objects.declare("default", tags=["zone=a"])
    start("--tag=zone=a")
    busy, waiting = keep_busy_and_claim_ahead()
    there = start("--tag=zone=b")

    Queue.objects.declare("default", upsert=True, tags=["zone=b"])

    wait_until_finished(waiting)
    assert all(started_on(job, there) for job in waiting)
    ledger.open_gate()
    wait_until_finished(busy)
    assert not any(started_on(job, there) for job in busy)


def test_the_admin_shows_the_worker_that_a_queue_has_moved_to(start: Start) -> None:
    Queue.objects.declare("default", tags=["zone=a"])
    here, there = start("--tag=zone=a"), start("--tag=zone=b")

    shown = []
    for tags in (["zone=a"], ["zone=b"], ["zone=."], [], [f"worker_id={worker_of(here).worker_id}"]):
        queue = Queue.objects.declare("default", upsert=True, tags=tags)
        shown.append({worker.worker_id for worker in backlogs([queue])["default"].workers})

    ids = [worker_of(command).worker_id for command in (here, there)]
    assert shown == [{ids[0]}, {ids[1]}, set(ids), set(), {ids[0]}]


def test_a_queue_without_workers_waits_for_one_that_gets_them(start: Start) -> None:
    Queue.objects.declare("default", tags=["gpu"])
    Queue.objects.declare("mail", tags=["*"])
    command = start("--tag=cpu")
    job = jobs.touch.enqueue()
    # The worker has claimed after it: it did not want it.
    wait_for_state(jobs.touch.using(queue_name="mail").enqueue(), JobState.SUCCEEDED)
    before = state_of(job)

    Queue.objects.declare("default", upsert=True, tags=["gpu", "cpu"])

    wait_for_state(job, JobState.SUCCEEDED)
    assert before == JobState.READY
    assert started_on(job, command)


def test_a_bad_expression_written_past_every_check_stops_its_queue_only(start: Start) -> None:
    Queue.objects.declare("default")
    Queue.objects.declare("mail")
    Queue.objects.filter(name="default").update(tags=["("])
    command = start()
    job = jobs.touch.enqueue()
    other = jobs.touch.using(queue_name="mail").enqueue()
    wait_for_state(other, JobState.SUCCEEDED)
    before = state_of(job)

    Queue.objects.declare("default", upsert=True, tags=["*"])

    wait_for_state(job, JobState.SUCCEEDED)
    assert before == JobState.READY
    assert command.returncode is None


def test_a_pause_with_an_end_ends_by_itself(start: Start) -> None:
    Queue.objects.declare("default")
    command = start()
    Queue.objects.pause("default", "A moment", timezone.now() + jobs.HOUR)
    wait_until_the_worker_has_looked(command)
    job = jobs.touch.enqueue()
    marker = jobs.touch.using(queue_name="mail").enqueue()
    wait_for_state(marker, JobState.SUCCEEDED)
    before = Job.objects.ready().filter(pk=job.id).exists()

    # No hint is sent: the time comes by itself.
    Queue.objects.update(resume_at=timezone.now())

    wait_for_state(job, JobState.SUCCEEDED)
    assert before
    assert Queue.objects.get(name="default").paused_reason == "A moment"
    assert command.returncode is None


def test_settings_declare_their_queues_at_the_start_of_a_worker(start: Start, tmp_path: object) -> None:
    Queue.objects.declare("mail", concurrency=1)
    settings = f"{tmp_path}/declaring_settings.py"
    with open(settings, "w") as file:
        file.write(
            "from tests.settings import *\n"
            "DJANGO_JOBS = {'QUEUES': {'mail': {'concurrency': 5, 'upsert': True}, 'gpu': {'tags': ['gpu']}}}\n"
        )

    start(env={"DJANGO_SETTINGS_MODULE": "declaring_settings", "PYTHONPATH": str(tmp_path)})

    rows = dict(Queue.objects.filter(name__in=["mail", "gpu"]).values_list("name", "concurrency"))
    assert rows == {"mail": 5, "gpu": None}
    assert Queue.objects.get(name="gpu").tags == ["gpu"]


def test_a_worker_whose_settings_declare_what_cannot_work_does_not_start(start: Start, tmp_path: object) -> None:
    settings = f"{tmp_path}/bad_settings.py"
    with open(settings, "w") as file:
        file.write("from tests.settings import *\nDJANGO_JOBS = {'QUEUES': {'mail': {'tags': ['(']}}}\n")
    env = {"DJANGO_SETTINGS_MODULE": "bad_settings", "PYTHONPATH": str(tmp_path)}

    commands = [start(f"--processes={count}", env=env, ready=False) for count in (0, 1)]

    for command in commands:
        assert command.wait() == 1
        assert "Queue 'mail': tags has the expression '('" in command.output()
        assert "Traceback" not in command.output()

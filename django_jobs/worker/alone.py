"""What a worker without a supervisor does besides its jobs, in threads of its own: it renews its lease and may lead."""

from __future__ import annotations

from collections.abc import Callable

from .duties import own_duties, plugin_duties
from .heartbeat import Heartbeat
from .leader import Leader, PluginDuties
from .options import WorkerOptions
from .service import Service


def services_of_one_alone(
    worker_id: str,
    options: WorkerOptions,
    on_lease_lost: Callable[[], None],
    on_death: Callable[[Service], None],
) -> list[Service]:
    """Return the loops that are a supervisor's where there is one."""
    heartbeat = Heartbeat(
        lambda: [worker_id],
        options.heartbeat_interval,
        options.heartbeat_timeout,
        lambda gone: on_lease_lost(),
        on_death,
    )
    leader = Leader(
        worker_id,
        own_duties(options.heartbeat_timeout),
        lease=options.heartbeat_timeout,
        poll_interval=options.poll_interval,
        is_beating=lambda: heartbeat.is_fresh,
        on_death=on_death,
    )
    plugins = plugin_duties()
    more = [PluginDuties(plugins, lambda: leader.is_leading, on_death)] if plugins else []
    return [heartbeat, leader, *more]

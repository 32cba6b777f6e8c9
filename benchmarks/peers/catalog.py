"""All peers, in the order in which they take turns; ours comes first, and its first variant is what others are
compared with.
"""

from __future__ import annotations

from .awa.peer import AWA
from .chancy.peer import CHANCY
from .dj_queue.peer import DJ_QUEUE
from .django_ox.peer import DJANGO_OX
from .django_tasks_db.peer import DJANGO_TASKS_DB
from .oban.peer import OBAN
from .ours.peer import OURS
from .peer import Peer
from .pgqueuer.peer import PGQUEUER
from .procrastinate.peer import PROCRASTINATE
from .raw.peer import RAW

PEERS: tuple[Peer, ...] = (
    *(OURS, PGQUEUER, AWA, OBAN, CHANCY, PROCRASTINATE),
    *(DJANGO_OX, DJ_QUEUE, DJANGO_TASKS_DB, RAW),
)

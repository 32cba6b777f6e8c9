"""All peers, in the order in which they take turns; ours comes first, and its first variant is what others are
compared with.
"""

from __future__ import annotations

from .ours.peer import OURS
from .peer import Peer

PEERS: tuple[Peer, ...] = (OURS,)

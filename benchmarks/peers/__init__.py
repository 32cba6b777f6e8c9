"""The peers, one folder each: ``peer.py`` says what it is, ``child.py`` runs in its own environment."""

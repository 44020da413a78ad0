"""Check that a Ray cluster answers, before Ray itself tries for minutes."""

from __future__ import annotations

import socket

CONNECT_SECONDS = 10


def no_cluster(address: str, reason: str) -> tuple[str, str]:
    """Return what to report if no cluster answers: the problem and the remedy."""
    remedy = "start its head by `ray start --head`, give HOST:PORT as it prints it, or set engine.name to local"
    return f"engine.address {address!r}: no Ray cluster answers there ({reason})", remedy


def dial(address: str) -> None:
    """Connect to HOST:PORT and hang up, as Ray itself would retry for minutes; `auto` is left to Ray.

    Raises:
        OSError: nobody listens there.
        ValueError: the address is not HOST:PORT.
    """
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()

"""Ranks that are forked from this process: importing torch anew would take longer than what they do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable


def forked_ranks(work: Callable[[int], None], count: int = 2) -> list[int]:
    """Fork ranks that find each other on this machine's CPU; each calls `work` with its number, and ends with status 0 where that returns.

    Returns:
        Their process ids.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(count):
        child = os.fork()
        if child == 0:
            place = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": count,
                "LOCAL_WORLD_SIZE": count,
                "MASTER_PORT": port,
            }
            os.environ |= {name: str(value) for name, value in place.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true"}
            status = 1
            try:
                work(rank)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    return children

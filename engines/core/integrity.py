"""What holds of queues, slots and counters after every step. Cheap enough for tests to ask each time; blocks: kv.py."""

from collections.abc import Sequence

from engines.core.errors import IntegrityError
from engines.core.request import Request


def check_order(queue: Sequence[Request]) -> None:
    order = [request.sequence for request in queue]
    if order != sorted(order):
        raise IntegrityError(f"a queue is not first come, first served: {order}")


def check_slots(free: Sequence[int], holders: Sequence[Request], max_batch: int) -> None:
    slots = sorted([*free, *[request.slot for request in holders]])
    if slots != list(range(max_batch)):
        raise IntegrityError(f"slots lost or held twice: {slots}")


def check_counters(requests: Sequence[Request], known: int) -> None:
    if known != len(requests):
        raise IntegrityError(f"{known} requests are known, {len(requests)} stand in a queue")
    for request in requests:
        if not 0 <= request.computed < request.known < request.target:
            raise IntegrityError(f"counters of {request!r} are out of order")

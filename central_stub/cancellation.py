"""Tasks that run until they are cancelled."""

import asyncio


def is_cancelled() -> bool:
    """Whether the task is to end: `asyncio.wait_for` of Python 3.11, which nats-py and psycopg_pool
    use, may lose a cancellation. So a loop that has no other end asks."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

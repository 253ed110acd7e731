"""Changes of products at random moments, at a Central or published at mosquitto.

    python -m benchmarks.harness.stream_changes central|mosquitto PORT CHANGES A_SECOND

A changed row carries the moment at which its change was sent, by `observers.now_ms`. At most
`SENT_A_SECOND` times a second changes are sent, beyond that several at once. It prints `ready`,
and once all are sent the seconds that took.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import Any

import orjson
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.harness.observers import STAMP, Connection, now_ms, ready
from benchmarks.harness.rows import row
from benchmarks.peers.mosquitto import TOPIC
from tests.harness.clients import CENTRAL_ADMIN_KEY

SENT_A_SECOND = 100
PRODUCTS = 5_000

Rows = list[dict[str, Any]]


def at_central(port: int) -> Callable[[Rows], None]:
    central = Connection(f"http://127.0.0.1:{port}", CENTRAL_ADMIN_KEY)

    def send(rows: Rows) -> None:
        set_rows = [{k: r[k] for k in ("productId", "available", STAMP)} for r in rows]
        central.ask("PUT", "/v1/admin/products/set", orjson.dumps({"products": set_rows}))

    return send


def at_mosquitto(port: int) -> Callable[[Rows], None]:
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port, keepalive=0)
    client.loop_start()
    while not client.is_connected():
        time.sleep(0.01)
    client.loop_stop()  # from here on, this thread sends each message itself

    def send(rows: Rows) -> None:
        for each in rows:
            client.publish(TOPIC, orjson.dumps(each))

    return send


def send_all(send: Callable[[Rows], None], changes: int, a_second: float) -> float:
    """Send the changes; return the seconds that it took."""
    moments = random.Random(3)
    at_once = max(1, round(a_second / SENT_A_SECOND))
    began = due = now_ms()
    for first in range(0, changes, at_once):
        due += moments.expovariate(a_second / at_once) * 1000
        time.sleep(max(0.0, due - now_ms()) / 1000)
        these = range(first, min(first + at_once, changes))
        send([row(n % PRODUCTS, available=n, version=n) | {STAMP: now_ms()} for n in these])
    return (now_ms() - began) / 1000


def main() -> None:
    kind, port, changes = sys.argv[1], *map(int, sys.argv[2:4])
    send = {"central": at_central, "mosquitto": at_mosquitto}[kind](port)
    ready()
    print(send_all(send, changes, float(sys.argv[4])), flush=True)


if __name__ == "__main__":
    main()

"""Live changes as Server-Sent Events: one ring of encoded changes, and readers that are places in
it.

    feed      follows the visible catalogue and fills the ring
    ring      the last changes, encoded once for all readers
    reader    one reader's place: what it gets next
    streams   the open streams: who is written to when, and who is ended
    handler   the request

A reader has no queue. What was superseded before it was sent is skipped, so a reader that falls
behind gets each product's newest state once.
"""

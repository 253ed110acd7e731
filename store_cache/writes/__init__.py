"""Sales on their way to Central: idempotency, forwarding, admission, writes in doubt."""

"""The routes of the outbox; absent while there is none."""

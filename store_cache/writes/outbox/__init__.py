"""The outbox: writes that could not reach Central, kept on disk and sent later (group O of the
rules)."""

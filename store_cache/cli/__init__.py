"""The command line: serve, demo, status, sync."""

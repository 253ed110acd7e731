"""Keeps the catalogue in sync with Central: follows its feed, and runs full syncs."""

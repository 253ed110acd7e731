"""Keeps the catalogue true: follows the feed of Central, and runs full syncs."""

"""The products in memory: rows, their order, applying events, the replica of a full sync."""

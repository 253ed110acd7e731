"""What the store saw happen to each product since its start, in memory."""

"""What requests hold and what answers are made of: bodies, headers of freshness, paths."""

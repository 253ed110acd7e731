"""Two processes of Central over one PostgreSQL: `python -m benchmarks.chain`."""

"""The commonest reads, answered in front of aiohttp by one write."""

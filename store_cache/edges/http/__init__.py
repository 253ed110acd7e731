"""The store's HTTP API on aiohttp: routes, keys, parsing, freshness, errors, connection guard.

It knows the contract's words and shapes; what they mean is behind `service.Service`.
"""

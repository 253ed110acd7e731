"""The store's HTTP API on aiohttp: server, middleware, authentication, handlers, limits."""

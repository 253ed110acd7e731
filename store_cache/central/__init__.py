"""The HTTP API of Central: client, connection, parsing, retries, rate limit."""

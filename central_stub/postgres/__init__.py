"""The ledger in PostgreSQL, for several processes of Central: an optional extra, `postgres`.

    effects     what a group of requests does, pure
    sums        row hashes as SQL can add them up, pure
    errors      what an error of PostgreSQL means for a request
    schema      the versions of the schema, and how a database gets the newest
    database    connections: a pool, one that listens, and a look every second
    tail        the end of the feed, in memory
    groups      the writer: requests that arrive together share a transaction
    backend     what the API asks

docs/chain.md says how to run it, and what happens when the database fails.
"""

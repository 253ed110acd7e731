"""The store's API over gRPC, beside HTTP: the same core, keys, limits and answers.

    server      listens: limits, TLS, health, reflection
    calls       what every call passes: key, scope, rate, errors, log, metrics
    errors      an error of the API as a status with details
    messages    rows, freshness and answers as messages
    inventory   the products
    watch       changes as they come, out of the streams of `api.stream`
    sync        the store itself
    generated   made of proto/storecache/v1/inventory.proto by `make proto`

It needs the packages of `store-cache[grpc]`, and is imported only where `GRPC_PORT` is set.
"""

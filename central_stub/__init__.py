"""A stub of Central: the chain's source of truth, to develop, test and load a store against.

`store_cache` and `central_stub` never import each other, so that a disagreement about the protocol
fails a test instead of being shared.

Layers, each importing only those before it:
    switches, catalogue, feed, keys, digest    values and rules, pure
    ledger                                     Central's whole state, pure, driven by `now`
    wire, faults, administration, central      HTTP without a network: a request in, a reply out
    storage, server, settings, cli             files, sockets, environment, command line
    loading, replay                            clients: load a catalogue, sell from it
"""

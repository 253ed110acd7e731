"""A stub of Central: the chain's source of truth, to develop, test and load a store against.

`store_cache` and `central_stub` never import each other, so that a disagreement about the protocol
fails a test instead of being shared.

Layers, each importing only those before it:
    switches, catalogue, feed, keys, digest    values, pure
    rules                                      what a write does, pure
    ledger                                     Central's whole state, pure, driven by `now`
    wire, faults                               HTTP without a network: bodies, and their faults
    storage                                    the ledger's changes on disk
    backend                                    what the API asks of the ledger behind it
    local                                      the ledger of this process, behind that
    administration, central                    a request in, a reply out
    server, settings, cli                      sockets, environment, command line
    loading, replay                            clients: load a catalogue, sell from it
"""

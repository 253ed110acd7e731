"""A small, honest Central: the chain's source of truth, to develop, test and load a store against.

It knows Central's side of the wire and nothing of the store: `store_cache` and `central_stub` never
import each other, so a disagreement about the wire fails a test instead of agreeing silently.

Layers, each importing only those before it:
    switches, catalogue, feed, keys, digest    values and rules, pure
    ledger                                     Central's whole state, pure, driven by `now`
    wire, faults, administration, central      HTTP without a network: a request in, a reply out
    storage, server, settings, cli             files, sockets, environment, command line
    loading, replay                            clients: put a catalogue in, sell from it
"""

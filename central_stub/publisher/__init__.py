"""Copy Central's feed into NATS JetStream (docs/nats.md): `central-stub publish-feed`.

It needs the extra `nats`, and is imported only by that command.
"""

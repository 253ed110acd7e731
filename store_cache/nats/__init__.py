"""The feed from NATS JetStream (`FEED_SOURCE=nats`, docs/nats.md), and from Central over HTTP what
NATS cannot give. It needs the extra `nats`, and is imported only if the setting asks for it.
"""

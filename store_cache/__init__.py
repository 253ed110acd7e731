"""A shop's own copy of the chain's inventory: served from memory, kept on disk, true to Central."""

__version__ = "0.1.0"

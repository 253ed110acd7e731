"""A shop's own copy of the chain's inventory: served from memory, kept on disk, true to Central.

Codes such as E3 or W6 in docstrings are the rules of docs/protocol.md; promises are numbered in
docs/reliability.md.
"""

__version__ = "0.1.0"

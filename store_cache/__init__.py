"""A shop's own copy of the chain's inventory: served from memory, kept on disk, true to Central.

`core` decides and knows no world, `edges` speak to disk, network and clock, `app` puts the
program together. Imports go from `app` to `edges` to `core`, never back.
"""

__version__ = "0.1.0"

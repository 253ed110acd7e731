"""How one Central carries many stores: by simulation of the store's own decisions."""

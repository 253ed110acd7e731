"""How one Central carries many stores: a simulation with the store's own decisions."""

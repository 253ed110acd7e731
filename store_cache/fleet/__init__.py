"""Reports of how this store is, sent to Central, so that the chain sees all stores in one place."""

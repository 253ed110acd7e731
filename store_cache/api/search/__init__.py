"""Search over the API: the index beside the running store, its parameters, its answers."""

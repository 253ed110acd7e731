"""Plain values that travel between packages: product, event, position, page, change, stock."""

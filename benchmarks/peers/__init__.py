"""Programs that the store is compared with, each configured as its own users would."""

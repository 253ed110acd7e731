"""Programs that a store is measured beside, each set up as its own friends would."""

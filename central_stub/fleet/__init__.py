"""The fleet: what the stores of a chain report of themselves, in one place."""

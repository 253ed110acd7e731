"""The decisions: positions, versions, holes, states. Nothing here awaits, opens, logs, sleeps, or
reads the clock, the environment or a random number; what it needs comes as an argument.
"""

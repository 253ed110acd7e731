"""The files of a store: snapshot, journal, recovery, directory."""

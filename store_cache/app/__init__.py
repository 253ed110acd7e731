"""The program: settings, logging, and the one place that builds and serves it."""

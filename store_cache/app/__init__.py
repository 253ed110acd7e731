"""The program: settings, logs, the command line, the HTTP API, and the one place that builds it."""

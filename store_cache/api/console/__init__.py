"""The console: one page for operators, with everything that it loads."""

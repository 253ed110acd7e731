"""How it is measured: processes, load, figures, pages."""

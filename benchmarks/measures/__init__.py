"""The measures, one module each; ``catalog.py`` has the table of them."""

"""One module per model family behind one small protocol, and the table of bundles."""

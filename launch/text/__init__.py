"""Numbers, tables and assumptions as people read them."""

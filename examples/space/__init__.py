"""A page on which a certificate can be watched while it is made: `make space`."""

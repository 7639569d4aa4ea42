"""One script a version, each from the one before."""

"""Read tables, check them and lay the series out as a panel. Features and models build on it."""

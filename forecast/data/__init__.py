"""From any table to a checked panel of series."""

"""From `freq` to timestamps and back."""

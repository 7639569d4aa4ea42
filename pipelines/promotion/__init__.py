"""Whether a challenger takes the place of the champion."""

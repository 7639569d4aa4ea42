"""From a panel to a trained bundle."""

"""Networks: weights only, state in and out."""

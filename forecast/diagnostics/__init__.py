"""What a trained model remembers, how it learned, and where it is wrong: small tables."""

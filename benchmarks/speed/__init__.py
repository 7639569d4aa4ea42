"""Speed of training, engine and service, and their behaviour when the server is killed."""

"""Requests and answers, whatever carries them."""

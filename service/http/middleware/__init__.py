"""What surrounds every request; pure ASGI."""

"""One file a resource; handlers say what is done, other modules do it."""

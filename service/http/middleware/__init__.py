"""
ASGI middleware around every request: log, limits, keys, disconnects and the model in the path.

May be imported by `service.app` and, for its helpers, by `service.http`.
"""

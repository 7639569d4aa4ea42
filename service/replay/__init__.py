"""
Replay of the log into live states: at a start, in the background, in worker processes.

May be imported by `service.serving` and `service.log_admin`.
"""

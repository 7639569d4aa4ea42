"""
Live states in memory, the thread that computes them, and their snapshots on disk.

May be imported by `service.ingest`, `service.replay`, `service.serving`, `service.api` and
`service.http`.
"""

"""
The models in service: where they come from, how they start, and how a new one replaces another.

May be imported by `service.api`, `service.http`, `service.app` and `service.server`.
"""

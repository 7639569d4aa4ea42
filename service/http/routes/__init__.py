"""
Routes, one module per resource. A handler calls one function of `service.api`.

May be imported by `service.app` only.
"""

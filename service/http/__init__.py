"""
HTTP: routes, middleware, problem documents and the OpenAPI document.

May be imported by `service.app` only.
"""

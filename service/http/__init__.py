"""HTTP: routes, middleware, problems, codecs, protocols, pages."""

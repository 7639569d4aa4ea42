"""
The commands, one module each: `install` adds the command to the application.

Modules that load torch, pandas or MLflow are imported inside functions, so that
`statecast --help` starts fast.
"""

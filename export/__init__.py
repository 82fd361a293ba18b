"""Artifacts from networks. As a function, `octc.export(source, targets, precision)`: see `octc.export.request`."""

from octc.core.callable_package import callable_package

callable_package(__name__, "octc.export.request", "export")

"""Artifacts from networks. As a function, `octc.export(network, targets, precision)`: see `octc.export.own_network`."""

from octc.core.callable_package import callable_package

callable_package(__name__, "octc.export.own_network", "export_network")

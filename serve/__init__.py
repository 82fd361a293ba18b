"""Serves artifacts over the network. `octc.serve(artifacts)` runs a server until it is stopped: see `octc.serve.server`."""

from octc.core.callable_package import callable_package

callable_package(__name__, "octc.serve.server", "serve_artifacts")

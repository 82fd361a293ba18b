"""Artifacts as a service. As a function, `octc.serve(artifacts)` runs one until it is stopped: see `octc.serve.server`."""

from octc.core.callable_package import callable_package

callable_package(__name__, "octc.serve.server", "serve_artifacts")

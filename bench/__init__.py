"""What an artifact is worth. As a function, `octc.bench(artifacts)` measures them: see `octc.bench.timing.job`."""

from octc.core.callable_package import callable_package

callable_package(__name__, "octc.bench.timing.job", "bench_artifacts")

"""Training. As a function, `octc.train(recipe, data=..., teacher=...)`: see `octc.compress.jobs`, which tunes the student."""

from octc.core.callable_package import callable_package

callable_package(__name__, "octc.compress.jobs", "train_network")

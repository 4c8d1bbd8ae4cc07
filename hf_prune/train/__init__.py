"""The trainer.

The mixin that makes a trainer prune, the engine that opens and closes its rounds, its sampler and schedule,
checkpoints, and what of Trainer's private members all this relies on. It may import `policies`.
"""

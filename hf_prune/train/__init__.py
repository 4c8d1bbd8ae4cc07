"""The trainer.

It holds the mixin that makes a trainer prune, the engine that opens and closes rounds, the sampler, the schedule and
the checkpoints. It also lists the private Trainer members that these rely on. It may import `policies`.
"""

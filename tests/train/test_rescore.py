"""A forward pass over rows that were pruned."""

import functools

import transformers as tf

from hf_prune import pruned


def test_rescoring_leaves_the_metrics_of_a_trainer_alone(make):
    class Notes(tf.Trainer):
        _metrics = None

        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            if not model.training:
                self._metrics["eval"].append(1)
            return super().compute_loss(model, inputs, return_outputs=return_outputs, **kwargs)

    ours = make("kakurenbo:threshold=0", pruned(Notes))
    ours._metrics = {"eval": []}
    ours.train()
    assert ours.pruning_report().totals()["rows_rescored"] > 0 and ours._metrics == {"eval": []}


def test_rescoring_takes_the_batches_that_fit(make, monkeypatch):
    sizes = []
    forward = tf.BertForSequenceClassification.forward

    @functools.wraps(forward)
    def narrow(self, input_ids=None, **more):
        if len(input_ids) > 8:
            raise RuntimeError("CUDA out of memory.")
        sizes.append((self.training, len(input_ids)))
        return forward(self, input_ids, **more)

    monkeypatch.setattr(tf.BertForSequenceClassification, "forward", narrow)
    ours = make("kakurenbo:threshold=0", auto_find_batch_size=True, per_device_train_batch_size=16)
    ours.train()
    assert {training for training, _ in sizes} == {True, False}
    assert max(size for _, size in sizes) <= 8

"""What callbacks see of rounds within an epoch."""

import inside
import transformers as tf
from tiny import TASKS


def test_callbacks_see_the_evaluation_in_every_round(make):
    class Seen(tf.TrainerCallback):
        def __init__(self):
            self.loaders = []

        def on_evaluate(self, args, state, control, eval_dataloader=None, **kwargs):
            self.loaders.append(eval_dataloader is not None and len(eval_dataloader))

    seen, rows = Seen(), TASKS["one label"].rows(8)
    steps = {"eval_strategy": "steps", "eval_steps": 2, "num_train_epochs": 2, "eval_dataset": rows}
    make("competence", callbacks=[seen], **steps).train()
    assert seen.loaders and all(loader == 1 for loader in seen.loaders)


def test_an_evaluation_that_a_callback_asks_for_is_counted_once(make):
    class Asks(tf.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            ours.evaluate()

    timed = []

    def compute_metrics(outputs):
        timed.append(inside.engine(ours).is_timing)
        return {}

    rows = TASKS["one label"].rows(4)
    ours = make("uniform:keep=0.5", callbacks=[Asks()], eval_dataset=rows, compute_metrics=compute_metrics)
    ours.train()
    seconds = ours.pruning_report().totals()["seconds_evaluating"]
    ours.evaluate()
    assert set(timed) == {False} and seconds > 0
    assert ours.pruning_report().totals()["seconds_evaluating"] == seconds  # of those during training

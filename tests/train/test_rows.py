"""Where the batches of a pruned run come from."""

import datasets
import inside
import pytest
import torch
import transformers as tf
from tiny import TASKS

from hf_prune import PruningTrainer, pruned


class Drawn(torch.utils.data.Dataset):
    """Draws from the global generator as it is read; has a level that a callback may set."""

    level = 0

    def __init__(self):
        self.rows = TASKS["one label"].rows()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        torch.rand(1)
        return self.rows[row]


def test_saving_the_model_in_training_leaves_the_generators_alone(make, tmp_path):
    class Saves(tf.TrainerCallback):
        def on_epoch_end(self, args, state, control, **kwargs):
            before = torch.get_rng_state()
            ours.save_model(str(tmp_path / "saved"))
            assert torch.equal(torch.get_rng_state(), before)

    ours = make("uniform:keep=1.0", rows=Drawn(), callbacks=[Saves()])
    ours.train()
    assert (tmp_path / "saved" / "history.safetensors").exists()


def test_what_is_set_on_the_loaders_data_is_set_on_the_users(make):
    class Level(tf.TrainerCallback):
        def on_epoch_begin(self, args, state, control, train_dataloader=None, **kwargs):
            train_dataloader.dataset.level += 1

    rows = Drawn()
    make("uniform:keep=0.5", rows=rows, callbacks=[Level()]).train()
    assert rows.level == 3


def test_a_loader_may_ask_for_the_sampler_as_older_ones_do(make):
    class Older(tf.Trainer):
        def get_train_dataloader(self):
            options = {"batch_size": 4, "collate_fn": self.data_collator, "sampler": self._get_train_sampler()}
            return self.accelerator.prepare(torch.utils.data.DataLoader(self.train_dataset, **options))

    assert make("uniform:keep=0.5", pruned(Older)).train().global_step == 9


def test_a_loader_of_the_users_own_is_refused_by_name(make):
    class Own(PruningTrainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(self.train_dataset, batch_size=4, collate_fn=self.data_collator)

    with pytest.raises(ValueError, match="Own builds its training batches without Trainer's sampler"):
        make("uniform", Own).train()


def test_tokens_of_lists_of_one_length_are_counted(make):
    features = datasets.Features({"input_ids": datasets.List(datasets.Value("int64"), length=5)})
    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2, 3, 4, 5]] * 6}, features=features)
    rows = rows.add_column("labels", [0, 1] * 3)
    assert make("uniform:keep=0.5,unit=tokens", rows=rows).train().global_step > 0


def test_tokens_joined_into_one_sequence_are_not_cut_between_processes(make):
    rows = TASKS["llama"].rows(8)
    ours = make(
        "ucb:keep=0.5", model=TASKS["llama"].model(0.0), rows=rows, accelerator_config={"dispatch_batches": True}
    )
    ours.data_collator = tf.DataCollatorWithFlattening()
    with pytest.raises(ValueError, match="Set accelerator_config={'dispatch_batches': False}"):
        ours.train()


@pytest.mark.parametrize("is_arrow", [True, False])
def test_the_class_of_a_text_is_no_token(make, is_arrow):
    """Also where a decoder reads it."""
    config = tf.BartConfig(vocab_size=31, d_model=16, encoder_layers=1, decoder_layers=1, num_labels=3)
    config.update({"encoder_attention_heads": 2, "decoder_attention_heads": 2})
    config.update({"encoder_ffn_dim": 16, "decoder_ffn_dim": 16})
    rows = [{"input_ids": [0, 5, 6, 2][: 3 + i % 2], "labels": i % 3} for i in range(8)]
    data = datasets.Dataset.from_list(rows) if is_arrow else rows
    ours = make("competence", model=tf.BartForSequenceClassification(config), rows=data)
    assert inside.begun(ours).tokens.tolist() == [3, 4] * 4

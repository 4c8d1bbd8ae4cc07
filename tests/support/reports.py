"""Reports, written by hand."""

import dataclasses

from hf_prune.report.account import PruningReport

EPOCHS = [
    {
        "epoch": 0,
        "rows_offered": 100,
        "rows": 100,
        "tokens_offered": 1000,
        "tokens": 1000,
        "padded_tokens": 1200,
        "rows_rescored": 0,
        "padded_tokens_rescored": 0,
        "steps": 10,
        "seconds_training": 4.0,
        "seconds_selecting": 0.25,
        "seconds_rescoring": 0.0,
    },
    {
        "epoch": 1,
        "rows_offered": 100,
        "rows": 60,
        "tokens_offered": 1000,
        "tokens": 500,
        "padded_tokens": 550,
        "rows_rescored": 40,
        "padded_tokens_rescored": 450,
        "steps": 6,
        "seconds_training": 2.5,
        "seconds_selecting": 0.5,
        "seconds_rescoring": 0.125,
    },
]


LOG = [
    {"step": 5, "loss": 3.0, "prune/rows": 50, "prune/tokens": 600},
    {"step": 10, "eval_loss": 2.0, "eval_bleu": 10.0},
    {"step": 15, "loss": 1.5, "prune/rows": 150, "prune/tokens": 1475},
    {"step": 16, "eval_loss": 1.0, "eval_bleu": 20.0},
    {"step": 16, "eval_loss": 9.0, "eval_bleu": 99.0},
]


REPORT = PruningReport(
    policy="Uniform(keep=0.6, unit='tokens')",
    epochs=EPOCHS,
    log_history=LOG,
    rows=100,
    faults=2,
    seconds_evaluating=1.25,
    steps_full=20,
)


IMAGES = dataclasses.replace(
    REPORT,
    epochs=[
        epoch | dict.fromkeys(("tokens_offered", "tokens", "padded_tokens", "padded_tokens_rescored"), 0)
        for epoch in EPOCHS
    ],
    faults=0,
)

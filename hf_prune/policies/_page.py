"""The page of all policies in Markdown: how to name one and how to write one, a table, and the cards."""

from collections.abc import Mapping

from ..core import Policy
from ._cards import Card

_BEGINNING = '''\
# Policies

<!-- Made by: hf-prune policies --markdown > hf_prune/policies/README.md -->

A policy is a rule that chooses the rows of each round. [Which rule, and when
none](../../README.md#which-rule-and-when-none) helps to choose one. `hf-prune policies` lists them, and
`hf-prune policies NAME` prints a card with the flags.

- [Name one](#name-one)
- [Write your own](#write-your-own)
- [All policies](#all-policies)

## Name one

- a name: `policy="infobatch"`
- a name with fields: `policy="infobatch:ratio=0.3"`; in the recipes also `--policy infobatch --ratio 0.3`
- an object: `from hf_prune.policies import InfoBatch`, then `policy=InfoBatch(ratio=0.3)`
- the dotted path of a module of yours: `policy="my_package.hardest"`

A budget (`keep`) is a share of rows, or of tokens with `unit="tokens"`. It may change in the course of training, in
quotation marks on a command line (not for `stale_sb`):

- a ramp: `--keep "0.3->1.0"` goes from 30 % to all rows in a line;
- a cycle: `--keep "0.5~0.3x4"` trains 50 - 30 % of the rows and then as long 50 + 30 %, four times in all. (After
  [PODS](https://arxiv.org/abs/2605.14773), which sets the length of its low phases by itself.)

A round gets the mean over its part of training, in whole optimizer steps. So the whole run gets the mean of the ramp or
of the cycle, and its steps are known ahead. Static policies rank their rows once, and the bandits (`ucb`,
`epsilon_greedy`) once a period; each round then takes the first of them.

Any policy can begin with what an earlier run learned: `PruningTrainer(..., history="out")`. Static policies (`el2n`,
`grand`, `forgetting`), `rho_loss` and `trusted` need [scores made before the
run](../../recipes/README.md#scores-from-earlier-runs).

Some rules of the literature score a batch at a time. Here they choose rows instead. Selective backprop runs a forward
pass on every row and a backward pass on the chosen ones: `stale_sb` uses the stored loss in place of that forward pass.
RHO-LOSS takes the best tenth of a large batch: `rho_loss` takes the best of all rows by their last loss.

## Write your own

One file, one class. `policy="my_package.hardest:keep=0.5"`, or `--policy my_package.hardest --keep 0.5`, finds it; its
fields are its flags.

```python
from dataclasses import dataclass

from hf_prune import BudgetPolicy, Selection


@dataclass(frozen=True)
class Hardest(BudgetPolicy):
    """Train on the rows of largest loss; rows never seen come first."""

    def select(self, history, clock, rng):
        return Selection(self.best(history.loss, history, clock, rng))
```

A policy sees arrays and returns rows.

- `history` holds what is known of each row: `loss` in nats, `last_round`, `tokens`, further signals that the policy
  names in `needs`, and the policy's own `notes`, which `update` writes.
- `clock` says where training stands: `round`, `rounds` (in an epoch), `epoch`, `epochs`, `share`, and `step_rows`, the
  rows in one optimizer step.
- `rng` is the only source of chance.
- `Selection` may carry weights (the class then says `weighs = True`), a factor on the learning rate, and rows to
  measure by a forward pass alone (`rescore`).
- `reads_columns` names columns of the data set, whose values are then in `history.features.columns`; `needs` then has
  "columns".
- With `rounds_per_epoch` above 1, each round chooses among its part of the epoch, `history.offered`.
- With `in_background = True`, `update` runs in a thread beside the next round.
- An error in `update` ends training where the next round would be selected. Training can go on from the last
  checkpoint: the mended `update` learns from that round again. After the last round, the error is only a warning.

What to take care of:

- Rows never seen have the loss NaN. A rule without a budget may keep them all. A rule with a budget takes them first,
  but last where `history.set_aside(rng)` says so: after three tries without a finite loss, or by a draw after visits
  without a target. `BudgetPolicy.best` does both.
- A round keeps at least one row. With `dataloader_drop_last=True`, rows that fill no batch end the run with an error.
  `whole_steps(rows, clock.step_rows)` of `hf_prune.core` rounds up to whole optimizer steps. Where a rule has
  thresholds, few rows or none may pass them: [ies.py](ies.py) then takes the next best, enough for a step.
- `forecast` says how many rows later rounds will keep. The planned number of steps comes from it: the progress bar, and
  `logging_steps`, `eval_steps` and `save_steps` below 1. Learning rates do not: they follow passes over the data set.
  Override it where the rule knows, as [seta.py](seta.py) does. A `BudgetPolicy` forecasts its budget, any other policy
  all rows.
- `__post_init__` refuses bad fields: `self.check_range("ratio", "[0, 1)")`. [seta.py](seta.py) also checks one field
  against another. Under a `BudgetPolicy`, call `super().__post_init__()` first: it checks `keep` and `unit`.
- The card of a rule of your own has `(ours)` at the end of its title, `none: our own rule` under Reference and, under
  Deviates, what a reader might expect otherwise.

To add it to this package, see [Contributing](../../.github/CONTRIBUTING.md#add-a-policy).

## All policies

Each card says what the rule needs, what it is good for, where its defaults come from, and how it deviates from the
paper and the authors' code.
'''


def page(cards: Mapping[str, tuple[Card, Policy]]) -> str:
    """Make the page of the policies.

    Args:
        cards: The card of each policy, and the policy with its defaults, by name.
    """
    lines = ["| policy | rule | good for |", "| --- | --- | --- |"]
    for name, (card, _) in cards.items():
        rule = card.title.partition(": ")[2].rstrip(".")
        lines.append(f"| [`{name}`](#{name}) | {_cell(rule)} | {_cell(card.entries['Good for'].rstrip('.'))} |")
    sections = [_section(name, card, policy) for name, (card, policy) in cards.items()]
    return "\n".join([_BEGINNING, *lines, "", "\n\n".join(sections)])


def _section(name: str, card: Card, policy: Policy) -> str:
    entries = "\n".join(f"- **{heading}**: {text}" for heading, text in card.entries.items())
    title = f"**{card.title}** `{policy!r}` in [{name}.py]({name}.py)."
    return "\n\n".join([f"## {name}", title, card.method, entries])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

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

A budget (`keep`) is a share of rows, or of tokens with `unit="tokens"`. Any policy can begin with what an earlier run
learned: `PruningTrainer(..., history="out")`. Static policies (`el2n`, `grand`, `forgetting`) need the [scores of an
earlier run](../../recipes/README.md#scores-from-earlier-runs).

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
- `clock` says where training stands: `round`, `epoch`, `epochs`, `share`.
- `rng` is the only source of chance.
- `Selection` may carry weights (the class then says `weighs = True`), a factor on the learning rate, and rows to
  measure by a forward pass alone (`rescore`).
- With `rounds_per_epoch` above 1, each round chooses among its part of the epoch, `history.offered`.
- With `in_background = True`, `update` runs in a thread beside the next round.
- An error in `update` ends training where the next round would be selected. Training can go on from the last
  checkpoint: the mended `update` learns from that round again. After the last round, the error is only a warning.

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

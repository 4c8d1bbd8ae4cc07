"""Which outputs a loss is made of, read from graphs made by hand."""

import torch

from hf_prune.measure.graph import carriers, edge_of, order, reached


def test_a_copy_in_another_type_stands_for_what_it_was_made_of():
    hidden = torch.ones(2, 3, requires_grad=True)
    logits = (hidden * 2).bfloat16()
    loss, shown = logits.sum(), logits.float()
    assert edge_of(shown) == edge_of(hidden * 2) or edge_of(shown)[0].name() == "MulBackward0"
    assert carriers(loss, {"logits": shown}) == ["logits"]


def test_a_loss_is_made_of_what_it_comes_to_first():
    logits = torch.ones(2, 3, requires_grad=True) * 2
    pooled = logits * 3
    assert carriers(pooled.sum() + logits.sum(), {"pooled": pooled, "logits": logits}) == ["pooled", "logits"]
    assert carriers(pooled.sum(), {"pooled": pooled, "logits": logits}) == ["pooled"]
    assert carriers(torch.ones(()), {"logits": logits}) == []


def test_outputs_that_are_made_of_one_another_are_weighted_in_an_order():
    states = torch.ones(2, 3, requires_grad=True) * 2
    head = torch.ones(3, 3, requires_grad=True)
    logits = states @ head
    assert order({"states": states, "logits": logits}) == {"states": {"logits"}, "logits": set()}
    assert order({"logits": logits, "scaled": logits / 3}) == {"logits": set()}  # whole there
    assert order({"logits": logits, "same": logits, "copy": logits.double()}) == {"logits": set()}
    assert order({"logits": logits}) == {"logits": set()}
    assert order({}) == {}


def test_a_graph_is_followed_as_far_as_wanted():
    leaf = torch.ones(2, requires_grad=True)
    middle = leaf * 2
    end = middle.sum()
    assert reached(edge_of(end), {edge_of(middle)}) == ({edge_of(middle)}, False)
    assert reached(edge_of(end + leaf.sum()), {edge_of(middle)}) == ({edge_of(middle)}, True)

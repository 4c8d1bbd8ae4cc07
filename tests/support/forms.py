"""Columns as data sets that are not of `datasets`."""

import torch


def as_list(columns):
    """The rows one by one."""
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def as_tensors(columns):
    """The rows one by one, their values as tensors."""
    return [{name: torch.as_tensor(value) for name, value in row.items()} for row in as_list(columns)]

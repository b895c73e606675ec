"""What a network answers to samples whose labels nobody looks at."""

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from fedge.training.macs import evaluating
from fedge.training.norms import norms_for_one
from fedge.training.task import Task


def logits(model: nn.Module, pictures: Iterable[Tensor], task: Task, classes: int) -> Tensor:
    """On batches x_BCHW [N, C], float64 on the CPU; modes are put back, nothing is learnt."""
    answers = [torch.empty(0, classes, dtype=torch.float64)]
    with evaluating(model), torch.no_grad():
        for x_BCHW in pictures:
            with norms_for_one(model) if len(x_BCHW) == 1 else nullcontext():
                out_BC = task.outputs(model(x_BCHW), len(x_BCHW))
            answers.append(out_BC.double().cpu())
    return torch.cat(answers)

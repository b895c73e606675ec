"""What cannot be pruned is refused in one clear line, and the network is left as it was."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from fedge.errors import RunError, UserError
from fedge.training.pruning.criteria import Evidence
from fedge.training.pruning.one_shot import prune
from tests.training.networks import INPUT_SHAPE, Separable, ThreeBranches, Tokens


def test_network_without_anything_to_cut_is_refused():
    """A silent no-op would report savings of nothing."""
    with pytest.raises(UserError, match="no channel that can be cut"):
        prune(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), 0.5, example_input=torch.zeros(1, 3, 2, 2))


def test_misunderstood_network_is_refused_untouched():
    """A join that tracing cannot see (channels shuffled by index) must be an error, not a wrong network."""

    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(self.a(x)[:, torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])]).mean((2, 3)))

    model = Shuffled()
    with pytest.raises(UserError, match="does not understand"):
        prune(model, 0.4, example_input=torch.zeros(1, *INPUT_SHAPE))
    assert model.a.out_channels == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 1.0}, "0 <= level < 1"),
        ({"level": -0.1}, "0 <= level < 1"),
        ({"criterion": "l2"}, "no pruning criterion 'l2'"),
        ({"accounting": "rough"}, "no accounting 'rough'"),
        ({"round_to": 0}, "cannot round widths to 0"),
        ({"criterion": "taylor"}, "pass batches="),
        ({"example_input": torch.zeros(1, 4, 14, 14)}, "cannot be traced"),
    ],
)
def test_wrong_arguments_are_one_clear_line(change, message):
    """A user's slip must not surface as a tracer's traceback."""
    arguments = {"level": 0.4, "example_input": torch.zeros(1, *INPUT_SHAPE), **change}
    with pytest.raises(UserError, match=message):
        prune(ThreeBranches(), arguments.pop("level"), **arguments)


@pytest.mark.parametrize("criterion", ["l1", "random"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("tensor", ["layers.0.weight", "layers.1.running_var"])
def test_diverged_network_is_named_as_such(criterion, value, tensor):
    """A criterion blind to the weights used to blame the way the network joins its channels."""
    model = Separable()
    model.state_dict()[tensor][0] = value
    with pytest.raises(UserError, match=f"diverged.*{tensor}"):
        prune(model, 0.3, example_input=torch.zeros(1, *INPUT_SHAPE), criterion=criterion)


def test_tied_parameters_are_refused():
    """A cut replaces parameters layer by layer: tied ones came apart, and the network grew from 356 to 508."""
    model = Tokens()
    model.second = nn.Linear(8, 8)
    model.head = nn.Linear(8, 8)
    model.head.weight = model.second.weight
    with pytest.raises(UserError, match=r"'second\.weight' and 'head\.weight' are one parameter"):
        prune(model, 0.3, example_input=torch.zeros(1, 4, 6))
    assert model.head.weight is model.second.weight


def test_layers_that_cannot_be_cut_are_refused():
    """A parametrised weight does not take a new size: half-way through a cut that is too late."""
    convolution = parametrizations.spectral_norm(nn.Conv2d(3, 8, 3))
    model = nn.Sequential(convolution, nn.ReLU(), nn.Flatten(), nn.Linear(8 * 144, 5))
    with pytest.raises(UserError, match="leave pruning out"):
        prune(model, 0.3, example_input=torch.zeros(1, *INPUT_SHAPE))
    assert model(torch.zeros(2, *INPUT_SHAPE)).shape == (2, 5)


class Overwriting(nn.Module):
    """Writes into an expanded tensor, which PyTorch refuses with a word about memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        ones_BC = torch.zeros(1, 3).expand(len(x_BCHW), 3)
        ones_BC += 1
        return self.head(self.conv(x_BCHW).mean((2, 3))) + ones_BC


def test_an_error_about_a_memory_location_is_the_networks_own():
    """Only a lack of memory may pass as it is; any other error is one clear line."""
    with pytest.raises(UserError, match="cannot be traced"):
        prune(Overwriting(), 0.3, example_input=torch.zeros(2, *INPUT_SHAPE))


def test_a_criterion_that_fails_is_one_clear_line():
    """Batches that do not fit the network must not surface as a traceback from inside a hook."""
    with pytest.raises(
        UserError, match=r"the pruning criterion failed \(.*check that it and the batches fit"
    ):
        prune(
            ThreeBranches(),
            0.3,
            example_input=torch.zeros(1, *INPUT_SHAPE),
            criterion="taylor",
            batches=[(torch.zeros(2, 7, 14, 14), torch.tensor([0, 1]))],
        )


@pytest.mark.parametrize(
    "error",
    [
        RunError("the disk is gone"),
        MemoryError("no"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_errors_that_are_not_the_criterions_pass(error):
    """A device that runs out of memory while ranking must be seen to: the fence knows allocator errors, not ours."""

    def broken(_: Evidence) -> Tensor:
        raise error

    with pytest.raises(type(error), match=str(error)):
        prune(ThreeBranches(), 0.3, example_input=torch.zeros(1, *INPUT_SHAPE), criterion=broken)

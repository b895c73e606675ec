"""Which cells the accuracy benchmark of EIF and EMP runs: tasks x regimes x methods x seeds.

The hyperparameters are the paper's (arXiv 2007.03213, section IV): LeNet: batch 64, learning rate 0.01, momentum 0.5;
CIFAR: batch 128, learning rate 0.1, momentum 0.9, weight decay 1e-4, divided by 10 at 1/2 and 3/4 of the iterations.
`smb` is dense training over a `keep` share of the iterations with the learning rate's schedule rescaled to them.
"""

from dataclasses import replace

from benchmarks.eif_emp.run import Cell, Method, Task

LENET = Task(
    dataset="mnist", model="lenet", iterations=18_700, batch_size=64, learning_rate=0.01, momentum=0.5,
    cooled_from=0.75,
)  # fmt: skip
SHORT = replace(LENET, iterations=1000, cooled_from=1.0)
CIFAR = Task(
    dataset="cifar10", model="resnet110", iterations=64_000, batch_size=128, learning_rate=0.1, momentum=0.9,
    weight_decay=1e-4, drops=(0.5, 0.75),
)  # fmt: skip


def random_keep(keep: float) -> Method:
    return Method(name=f"random {keep:g}", filter="random", keep=keep)


def fewer_iterations(keep: float) -> Method:
    return Method(name=f"smb {keep:g}", iteration_share=keep)


def early(keep: float, *, error_keep: float = 1.0, quantised: bool = False, **options: float | str) -> Method:
    name = " ".join([f"early {keep:g}", *(f"{key}={value}" for key, value in options.items())])
    if error_keep < 1:
        name += f" + error maps {error_keep:g}"
    if quantised:
        name += " + 8 bits"
    return Method(
        name=name, filter="early", keep=keep, filter_options=tuple(options.items()), error_keep=error_keep,
        quantised=quantised,
    )  # fmt: skip


def error_maps(keep: float, **options: float | str) -> Method:
    name = " ".join([f"error maps {keep:g}", *(f"{key}={value}" for key, value in options.items())])
    return Method(name=name, error_keep=keep, error_options=tuple(options.items()))


def _smoke() -> list[Cell]:
    """Every kind of method, for seconds, on digits that need no file."""
    task = replace(SHORT, dataset="digits", iterations=40, batch_size=16, cooled_from=0.75)
    methods = (
        Method(),
        random_keep(0.2),
        early(0.2),
        error_maps(0.5),
        early(0.4, error_keep=0.5, quantised=True),
    )
    return [Cell(task, "parked", method, 0) for method in methods]


def _regimes() -> list[Cell]:
    """Equal total MACs: the filter's own cost is 1.5 % of dense training, which the others may spend on instances."""
    methods = (early(0.196), random_keep(0.213), fewer_iterations(0.213))
    order = ("parked", "long_tail", "plain", "drift", "noise", "runs")
    return [Cell(SHORT, regime, method, seed) for regime in order for seed in range(3) for method in methods]


def _loss_filters() -> list[Cell]:
    """What looks at every loss pays a third of dense training before it keeps anything."""
    methods = [Method(name=f"{kind} 0.1", filter=kind, keep=0.1) for kind in ("ohem", "selective_backprop")]
    return [
        Cell(SHORT, regime, method, seed)
        for method in methods
        for regime in ("long_tail", "plain")
        for seed in range(3)
    ]


def _variants() -> list[Cell]:
    """The paper's controller, less exploring, and distrust of the highest losses."""
    cells = [Cell(SHORT, regime, early(0.196, explore=0.25), 0) for regime in ("long_tail", "drift")]
    cells += [Cell(SHORT, "noise", early(0.196, distrust=0.1), 0)]
    return [*cells, Cell(SHORT, "plain", early(0.2, controller="paper"), 0)]


def _lenet() -> list[Cell]:
    methods = (Method(), random_keep(0.2), fewer_iterations(0.2), early(0.19))
    return [Cell(LENET, "plain", method, seed) for seed in range(3) for method in methods]


def _pushed() -> list[Cell]:
    """Beyond 85 % saved."""
    return [Cell(LENET, "plain", early(0.15, error_keep=0.5), seed) for seed in range(3)]


def _together() -> list[Cell]:
    """Each method alone and with the others."""
    methods = (
        Method(),
        error_maps(0.5),
        Method(name="8 bits", quantised=True),
        early(0.2, error_keep=0.5),
        early(0.2, error_keep=0.5, quantised=True),
    )
    return [Cell(SHORT, "plain", method, seed) for seed in range(3) for method in methods]


def _scores() -> list[Cell]:
    """Which error maps to keep, at a share where it matters."""
    methods = [error_maps(0.25, score=score) for score in ("error", "paper", "product", "random")]
    return [Cell(SHORT, "plain", method, seed) for seed in range(3) for method in methods]


def _cifar_error_maps() -> list[Cell]:
    task = replace(CIFAR, model="resnet8", iterations=600)
    quarters = (error_maps(0.25), error_maps(0.25, score="random"))
    methods = (Method(), fewer_iterations(0.67), error_maps(0.5), *quarters)
    return [Cell(task, "plain", method, seed) for seed in range(2) for method in methods]


def _cifar_narrow() -> list[Cell]:
    """Far from convergence: 600 of the 64k iterations, on ResNet-8; once 2500."""
    task = replace(CIFAR, model="resnet8", iterations=600)
    methods = (early(0.25, network="slim_lenet", downsample=1), random_keep(0.27), fewer_iterations(0.27))
    regimes = ("plain", "parked", "long_tail")
    cells = [
        Cell(task, regime, method, seed) for regime in regimes for seed in range(3) for method in methods
    ]
    longer = replace(task, iterations=2500)
    return cells + [Cell(longer, "plain", method, 0) for method in (*methods, Method())]


def _infobatch() -> list[Cell]:
    """Over 20 epochs, as it drops nothing in the first."""
    method = Method(name="infobatch 0.5", filter="infobatch", keep=0.5)
    return [Cell(LENET, "plain", method, seed) for seed in range(3)]


def _cpu() -> list[Cell]:
    """Those that have no row yet are what a next run starts with."""
    short = [*_regimes(), *_together(), *_scores(), *_loss_filters(), *_variants()]
    return [*short, *_lenet(), *_pushed(), *_cifar_narrow(), *_cifar_error_maps(), *_infobatch()]


def _full() -> list[Cell]:
    methods = (
        Method(),
        early(0.3, downsample=1),
        random_keep(0.36),
        early(0.3, error_keep=0.5, downsample=1),
    )
    models = ("resnet110", "resnet74", "vgg16")
    return [
        Cell(replace(CIFAR, model=model), "plain", method, seed)
        for model in models
        for seed in range(3)
        for method in methods
    ]


PRESETS = {
    "smoke": _smoke,
    "cpu": _cpu,
    "full": _full,
}

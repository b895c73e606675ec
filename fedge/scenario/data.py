"""`[data]`: which data, who holds what of them, and how each holder divides them."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedge.scenario.beside import Beside, BesideFolder
from fedge.scenario.section import Count, Fraction, Positive, Section, Share
from fedge.scenario.stream.section import Stream


class Iid(Section):
    """Every client draws from the same distribution."""

    kind: Literal["iid"] = "iid"


class Dirichlet(Section):
    """Per class, the clients' shares are drawn from Dirichlet(alpha). alpha 0.1: very unlike; 100: nearly iid."""

    kind: Literal["dirichlet"]
    alpha: Positive = 0.3


class Pathological(Section):
    """Every client holds exactly `classes` classes."""

    kind: Literal["pathological"]
    classes: Count = 2


class Shards(Section):
    """Sorted by label, cut into equal shards, `per_client` shards each (McMahan et al. 2017)."""

    kind: Literal["shards"]
    per_client: Count = 2


class Natural(Section):
    """The data's own owners: one client per person (har; data of one's own that were imported with owners)."""

    kind: Literal["natural"]


class Subsets(Section):
    """ADaPT's named subsets of CIFAR-100; the clients are divided into one group per name, in order."""

    kind: Literal["subsets"]
    names: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "aquatic",
        "indoor",
        "outdoor",
        "natural",
        "random",
    )


class Given(Section):
    """A csv file says who holds what: `row,client`, and `part` (train, validation, test) instead of data.split.

    The factory's rows are drawn from those that the file gives to nobody.
    """

    kind: Literal["given"]
    file: Annotated[str, Beside()]


Partition = Annotated[
    Iid | Dirichlet | Pathological | Shards | Natural | Subsets | Given, Field(discriminator="kind")
]


class Split(Section):
    """How a client divides its own rows. `test` is only ever evaluated on.

    row: at random, row by row. run: whole runs, what one owner recorded under one label without a break. time: the
    first rows train, the last test. The latter two are for data in the order of recording (har), whose windows overlap.
    gap: rows that are dropped where two parts meet; None: as many as share samples, if that is known (har, windows that
    fedge import cut), else 0.
    """

    by: Literal["row", "run", "time"] = "row"
    train: Share = 0.6
    validation: Fraction = 0.2
    test: Fraction = 0.2
    gap: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _gap_is_of_an_order(self) -> "Split":
        if self.gap and self.by == "row":
            raise ValueError("gap is for splits by 'run' or 'time'; by 'row' no two rows are neighbours")
        return self

    @model_validator(mode="after")
    def _sums_to_one(self) -> "Split":
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the parts sum to {total:g}; they must sum to 1")
        return self


class Data(Section):
    dataset: Annotated[str, BesideFolder()]  # a name, or the path of a data folder
    root: Annotated[str, Beside()] | None = (
        None  # folder of the files; None: FEDGE_DATA, else the user's cache folder
    )
    factory_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.3  # trains the factory model, never a client's
    seed: Annotated[int, Field(ge=0)] | None = (
        None  # the world: who holds what, which factory model; None: `seed`
    )
    tolerance: Positive | tuple[Positive, ...] | None = (
        None  # of task numbers: what is right, in y's unit, for all or each; None: half a standard deviation
    )
    partition: Partition = Iid()
    split: Split = Split()
    stream: Stream | None = None  # how training rows come; None: all are there from the first round

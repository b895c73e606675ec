"""One client's rows on disk."""

from mmap import mmap

import numpy as np
import pytest
import torch

from fedge.data.augment import crop_flip
from fedge.data.dataset import DataSet
from fedge.data.partition import ClientRows
from fedge.data.shard import Shard, data_tie, export_shard, training_rows, write_shards
from fedge.errors import UserError

ROWS = 20
CLIENTS = (
    ClientRows(np.array([4, 2, 9]), np.array([0]), np.array([7, 8])),
    ClientRows(np.array([5]), np.array([], np.int64), np.array([], np.int64)),
    ClientRows(np.array([11, 12, 13, 14, 15]), np.array([16]), np.array([17])),
)


@pytest.fixture
def dataset() -> DataSet:
    x = np.random.default_rng(0).integers(0, 256, (ROWS, 3, 8, 8), dtype=np.uint8)
    return DataSet("toy", x, np.arange(ROWS), ROWS, ROWS, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))


@pytest.fixture
def folder(dataset, tmp_path):
    write_shards(dataset, CLIENTS, tmp_path / "shards")
    return tmp_path / "shards"


def test_each_client_reads_its_own_rows_split_by_split(dataset, folder):
    """A client would train on another's data, or on its own test rows."""
    for client, rows in enumerate(CLIENTS):
        shard = Shard.open(folder, client)
        for split, expected in zip(("train", "validation", "test"), rows.parts, strict=True):
            assert shard.count(split) == len(expected)
            assert np.array_equal(shard.labels(split), dataset.y[expected])


def test_how_many_training_rows_each_has(folder):
    """Long clients would be taken for short ones, and a round would end with them."""
    assert training_rows(folder) == [len(rows.parts[0]) for rows in CLIENTS]


def test_a_batch_is_the_normalised_picture(dataset, folder):
    """The network would see other numbers than (pixel / 255 - mean) / std."""
    (x_BCHW, y_B), (last, _) = Shard.open(folder, 0).batches("train", 2)
    expected = (dataset.x[[4, 2]] / 255 - np.reshape(dataset.mean, (3, 1, 1))) / np.reshape(
        dataset.std, (3, 1, 1)
    )
    assert x_BCHW.dtype == torch.float32 and y_B.dtype == torch.int64
    assert np.allclose(x_BCHW, expected, atol=1e-6) and y_B.tolist() == [4, 2]
    assert len(last) == 1  # the short last batch is kept


@pytest.mark.parametrize("augment", [None, crop_flip])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_pictures_lie_in_the_order_asked_for_and_are_the_same(folder, order, augment):
    """If this fails, a device trains in the slower order, or on other numbers than in the other one."""
    shard = Shard.open(folder, 2)
    pairs = zip(
        shard.batches("train", 2, seed=3, transform=augment, order=order),
        shard.batches("train", 2, seed=3, transform=augment),
        strict=True,
    )
    for (x_BCHW, _), (plain_BCHW, _) in pairs:
        assert x_BCHW.stride() == torch.empty(x_BCHW.shape, memory_format=order).stride()
        assert plain_BCHW.is_contiguous() and torch.equal(x_BCHW, plain_BCHW)


def test_a_seed_gives_one_permutation_and_touches_no_global_generator(folder):
    """The same round would differ from host to host."""
    shard, before = Shard.open(folder, 2), torch.get_rng_state()
    orders = [torch.cat([y for _, y in shard.batches("train", 2, seed=seed)]).tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == [11, 12, 13, 14, 15]
    assert torch.equal(torch.get_rng_state(), before)


def test_augmented_pictures_are_crops_of_the_padded_original(dataset, folder):
    """Augmentation would invent or misplace pixels."""
    ((x_BCHW, y_B),) = Shard.open(folder, 2).batches("train", 5, seed=0, transform=crop_flip)
    raw = (
        x_BCHW * torch.tensor(dataset.std)[:, None, None] + torch.tensor(dataset.mean)[:, None, None]
    ) * 255
    for picture, label in zip(raw.round().to(torch.uint8).numpy(), y_B.tolist(), strict=True):
        padded = np.pad(dataset.x[label], ((0, 0), (4, 4), (4, 4)))
        crops = [padded[:, top : top + 8, left : left + 8] for top in range(9) for left in range(9)]
        assert any(
            np.array_equal(picture, crop) or np.array_equal(picture, crop[:, :, ::-1]) for crop in crops
        )


def test_an_empty_part_yields_no_batch(folder):
    """A client without test data would crash instead of reporting a count of 0."""
    assert list(Shard.open(folder, 1).batches("test", 4)) == []


def test_an_exported_shard_holds_one_client_and_no_other_row(dataset, folder, tmp_path):
    """A real node would be handed other people's data."""
    export_shard(folder, 2, tmp_path / "node")
    shard = Shard.open(tmp_path / "node", 0)
    assert len(np.load(tmp_path / "node" / "y.npy")) == 7
    for mine, original in zip(
        shard.batches("train", 8), Shard.open(folder, 2).batches("train", 8), strict=True
    ):
        assert torch.equal(mine[0], original[0]) and torch.equal(mine[1], original[1])
    with pytest.raises(UserError, match="holds clients 0 to 0"):
        Shard.open(tmp_path / "node", 1)


def test_a_missing_or_damaged_folder_is_one_clear_line(folder, tmp_path):
    """A device would end in a traceback that names no folder."""
    (folder / "y.npy").write_bytes(b"half")
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no readable folder of shards"):
            Shard.open(path, 0)


def test_writing_leaves_nothing_beside_the_folder(folder):
    """Half-written copies would pile up in the cache."""
    assert [path.name for path in folder.parent.iterdir()] == ["shards"]


def reachable(thing: object, seen: dict[int, object]) -> dict[int, object]:
    """All that attributes, containers and the `base` of arrays lead to from `thing`."""
    if id(thing) in seen or isinstance(thing, type | torch.dtype | np.dtype) or callable(thing):
        return seen
    seen[id(thing)] = thing
    inside = list(vars(thing).values()) if hasattr(thing, "__dict__") else []
    inside += list(thing.values()) if isinstance(thing, dict) else []
    inside += list(thing) if isinstance(thing, list | tuple) else []
    inside += [getattr(thing, name) for name in ("x", "y", "base", "obj", "_mmap") if hasattr(thing, name)]
    for part in inside:
        reachable(part, seen)
    return seen


@pytest.mark.parametrize("client", range(len(CLIENTS)))
def test_nothing_of_a_shard_leads_to_another_clients_rows(dataset, folder, client):
    """A program that loops over what its shard holds would train on everybody's rows."""
    shard = Shard.open(folder, client)
    own = [*CLIENTS[client].parts[0]]
    next(iter(shard.batches("train", 2)))
    held = [thing for thing in reachable(shard, {}).values() if isinstance(thing, np.ndarray | mmap)]
    others = [row for row in range(ROWS) if row not in own]
    assert {thing.nbytes for thing in held if isinstance(thing, np.ndarray)} == {192 * len(own), 8 * len(own)}
    for thing in held:
        assert not any(dataset.x[row].tobytes() in bytes(memoryview(thing)) for row in others)


@pytest.mark.parametrize("client", range(len(CLIENTS)))
def test_a_loop_over_a_shard_sees_its_training_rows_once(dataset, folder, client):
    """A naive loop, or PyTorch's own loader, would train on validation and test rows and report their accuracy."""
    shard, train = Shard.open(folder, client), CLIENTS[client].parts[0]
    assert np.array_equal(shard.x, dataset.x[train]) and np.array_equal(shard.y, dataset.y[train])
    assert len(shard) == len(shard.x) == len(shard.y) == len(train)
    (x_NCHW, _), *_ = shard.batches("train", len(train))
    for pairs in (list(shard), [shard[index] for index in range(len(shard))]):
        assert [int(label) for _, label in pairs] == dataset.y[train].tolist()
        assert torch.equal(torch.stack([x_CHW for x_CHW, _ in pairs]), x_NCHW)
    loaded = list(torch.utils.data.DataLoader(shard, batch_size=2))
    assert torch.equal(torch.cat([x_BCHW for x_BCHW, _ in loaded]), x_NCHW)
    assert torch.cat([y_B for _, y_B in loaded]).tolist() == dataset.y[train].tolist()


def test_a_shard_reads_the_rows_it_is_asked_for(folder, monkeypatch):
    """Opening would read every client's rows into memory: ten thousand clients would not fit."""
    read = []
    plain = np.array
    monkeypatch.setattr(np, "array", lambda rows, *options: read.append(len(rows)) or plain(rows, *options))
    shard = Shard.open(folder, 2)
    list(shard.batches("train", 2))
    assert not read
    shard.arrays("test")
    assert read == [1, 1]


def of_task(task: str, y: np.ndarray, columns: int) -> DataSet:
    x = np.random.default_rng(0).integers(0, 256, (ROWS, 3, 8, 8), dtype=np.uint8)
    return DataSet("toy", x, y, columns, ROWS, (0.5,) * 3, (0.2,) * 3, task=task)


def test_numbers_are_standardised_by_the_rows_that_are_said(tmp_path):
    """Breaks if targets are standardised by a client's own rows, which would tell them apart, or stored so."""
    y = np.stack([np.arange(ROWS), np.full(ROWS, 7)], 1).astype(np.float32)
    write_shards(of_task("numbers", y, 2), CLIENTS, tmp_path / "s", targets_of=np.array([3, 5]))
    shard = Shard.open(tmp_path / "s", 0)
    assert (shard.task, shard.target_mean, shard.target_std) == ("numbers", (4.0, 7.0), (1.0, 1.0))
    assert shard.y.tolist() == [[4, 7], [2, 7], [9, 7]]
    ((_, y_BK),) = shard.batches("train", 9)
    assert y_BK.tolist() == [[0, 0], [-2, 0], [5, 0]] and y_BK.dtype == torch.float32
    assert shard[2][1].tolist() == [5, 0]
    export_shard(tmp_path / "s", 2, tmp_path / "one")
    again = Shard.open(tmp_path / "one", 0)
    assert again.target_mean == (4.0, 7.0) and again.y[0].tolist() == [11, 7]
    write_shards(of_task("numbers", y, 2), CLIENTS, tmp_path / "all")
    assert Shard.open(tmp_path / "all", 0).target_mean == (9.5, 7.0)


def test_labels_are_stored_as_they_are(tmp_path):
    """Breaks if labels are taken for numbers, or a row of them for a class."""
    y = (np.arange(ROWS)[:, None] >> np.arange(3) & 1).astype(np.uint8)
    write_shards(of_task("labels", y, 3), CLIENTS, tmp_path / "s")
    shard = Shard.open(tmp_path / "s", 0)
    ((_, y_BK),) = shard.batches("train", 9)
    assert y_BK.tolist() == [[0, 0, 1], [0, 1, 0], [1, 0, 0]] and y_BK.dtype == torch.uint8
    assert shard.labels("validation").tolist() == [[0, 0, 0]]
    assert 0 < data_tie(shard) < 1


@pytest.mark.parametrize(
    ("task", "y", "said"),
    [
        ("labels", np.full((ROWS, 2), 2, np.uint8), "y holds 2 in row 0"),
        ("labels", np.zeros((ROWS, 3), np.uint8), r"shape \[20, 3\]; wanted \[N, 2\]"),
        ("labels", np.zeros((ROWS, 2)), "y is float64; task 'labels' wants uint8"),
        ("numbers", np.full((ROWS, 2), np.nan, np.float32), "y holds nan or infinity in row 0"),
    ],
)
def test_targets_that_are_no_such_task_are_one_line(tmp_path, task, y, said):
    """Breaks if a damaged array is trained on."""
    with pytest.raises(UserError, match=said):
        write_shards(of_task(task, y, 2), CLIENTS, tmp_path / "s")


def test_a_transform_of_ones_own(folder):
    """Breaks if chance comes from elsewhere than the seed, pictures are handed out as bytes, or y is changed."""
    seen = []

    def brighter(x_BCHW, generator):
        seen.append(x_BCHW.clone())
        return x_BCHW + torch.rand(len(x_BCHW), 1, 1, 1, generator=generator)

    shard = Shard.open(folder, 2)
    once, again = (list(shard.batches("train", 2, seed=4, transform=brighter)) for _ in range(2))
    plain = list(shard.batches("train", 2, seed=4))
    for (x, y), (x_again, _), (x_plain, y_plain) in zip(once, again, plain, strict=True):
        assert torch.equal(x, x_again) and torch.equal(y, y_plain) and not torch.equal(x, x_plain)
    assert seen[0].dtype == torch.float32 and seen[0].min() >= 0 and seen[0].max() <= 1
    for wrong, said in (
        (lambda x, generator: None, "transform '<lambda>' returned a NoneType"),
        (lambda x, generator: x[:, :1], r"returned float32 \[2, 1, 8, 8\] for float32 \[2, 3, 8, 8\]"),
        (lambda x, generator: x.double(), "returned float64"),
    ):
        with pytest.raises(UserError, match=said):
            list(shard.batches("train", 2, seed=4, transform=wrong))
    with pytest.raises(UserError, match="transform needs a seed"):
        next(shard.batches("train", 2, transform=brighter))

"""A network of one's own, from its file to the reports."""

import fedge


def rows(result) -> list[dict]:
    return [
        {k: v for k, v in row.items() if not k.startswith("host")} for row in result.reports(timing=False)
    ]


def test_it_is_trained_pruned_and_built_again_in_each_round(folder, load, capfd) -> None:
    """Breaks if a network from a file is not built on the devices, cannot be cut or resumed from its record, speaks on
    the user's terminal, or if the run folder does not keep its text."""
    result = fedge.run(load(), folder / "out")
    assert [row["status"] for row in result.reports()] == ["ok"] * 4
    assert all(row["parameters"] < row["parameters_dense"] for row in result.reports() if row["round"] == 2)
    assert "built for" not in "".join(capfd.readouterr())
    kept = {path.name: path.read_text() for path in (folder / "out" / "programs").iterdir()}
    assert kept["net.py"] == (folder / "net.py").read_text() and kept["layers.py"]

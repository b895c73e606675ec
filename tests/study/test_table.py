"""What a study's table says in sentences."""

from typing import Any

from fedge.study.table import verdicts


def arm(factory: float, told: float | None, mean: float = 0.9, *, ships: str = "one") -> dict[str, Any]:
    accuracy = {"factory": factory, "told": told, "mean": mean}
    return {"accuracy": accuracy, "gain": {"interval": None}, "factory_model": ships}


def said(arms: dict[str, Any]) -> list[str]:
    return verdicts({"baseline": "factory", "arms": arms, "fronts": {"accuracy": {}}})


def test_what_costs_nothing_comes_first() -> None:
    """Breaks if a reader takes what the mask alone brings for the work of the methods."""
    lines = said({"dense": arm(0.622, 0.903), "head": arm(0.622, 0.903)})
    assert lines[0] == (
        "Untrained, the factory model answers 62.2% of the test samples, and 90.3% told each client's classes."
    )
    assert len(lines) == 3 and "dense does not reach told" in lines[1]


def test_an_arm_of_another_factory_model_is_named() -> None:
    """Breaks if a narrower network's factory model passes for that of the other arms."""
    lines = said({"dense": arm(0.5, None), "narrow": arm(0.4, None, ships="narrow"), "head": arm(0.5, None)})
    assert lines[:2] == [
        "Untrained, the factory model of dense, head answers 50.0% of the test samples.",
        "Untrained, the factory model of narrow answers 40.0% of the test samples.",
    ]

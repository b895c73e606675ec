"""What `fedge audit` found, for a terminal; the page takes its rows from here too."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from fedge.console.phases import percent

Row = Mapping[str, Any]
Line = tuple[str, str, str, str]
"""What was tried, what the observer knows, what the server knows, how many trials stand behind it."""

HEADINGS = ("tried", "the observer knows", "the server knows", "by")
ARM_HEADINGS = ("arm", "members found at 1 % false", "area under the curve", "against dense", "by")


def known_lines(found: Row) -> list[Line]:
    """The figures of the reports, in two columns: who has every report, and who has what the scenario gives it."""
    lines: list[Line] = []
    by_canary: dict[str, dict[str, Row]] = {}
    for each in found.get("reports", {}).get("guesses", ()):
        by_canary.setdefault(each["canary"], {})[each["view"]] = each
    for canary, views in by_canary.items():
        some = next(iter(views.values()))
        observer, server = (_guessed(views.get(name)) for name in ("observer", "server"))
        by = f"{some['coins']} coins; all right would show {some['most_that_so_many_coins_show']:.1f}"
        lines.append((f"whether {canary}", observer, server, by))
    if views := {each["view"]: each for each in found.get("property", {}).get("views", ())}:
        observer, server = (_inferred(views.get(name)) for name in ("observer", "server"))
        trials = next(iter(views.values()))["right"]["trials"]
        share = percent(found["property"]["share"])
        lines.append(
            (
                f"which classes {share} of a client's rows are of",
                observer,
                server,
                f"{trials} guesses; chance 50%",
            )
        )
    return lines


def _guessed(each: Row | None) -> str:
    if each is None:
        return "-"
    ledger = each["epsilon_of_the_ledger"]
    said = "no ledger" if ledger is None else f"ledger {ledger:g}"
    return (
        f"{percent(each['right'] / each['coins'])} right: epsilon ≥ {each['epsilon_at_least']:.2f} ({said})"
    )


def _inferred(each: Row | None) -> str:
    return "-" if each is None else f"{_share(each['right'])} right"


def _share(share: Row) -> str:
    value = "-" if share["value"] is None else percent(share["value"])
    return f"{value} [{100 * share['low']:.0f}, {100 * share['high']:.0f}]"


def place_lines(found: Row) -> list[tuple[str, str, str]]:
    """Per place: how much was looked at, and what was there."""
    canaries = found.get("canaries")
    if canaries is None:
        return []
    lines = []
    for place in canaries["places"]:
        size = f"{place['bytes'] / 1e6:,.2f} MB"
        there = [f"{hit['canary']} ({hit['within']}{hit['form']})" for hit in place["found"]]
        skipped = f"not looked at: {place['skipped']}" if place["skipped"] else "nothing"
        lines.append((place["place"], size, "; ".join(there) or skipped))
    figures = canaries["figures"]
    matches = [
        f"{each['values']} values of {each['canary']} ({each['reading']}) in {each['where']}, by chance "
        f"{each['chance']:.1g}"
        for each in figures["found"]
    ]
    lines.append(
        ("the client's figures", f"{figures['comparisons']:,} places", "; ".join(matches) or "nothing")
    )
    return lines


def arm_lines(found: Row) -> list[tuple[str, str, str, str, str]]:
    """Membership on the personal models, an arm per line."""
    lines = []
    for each in found.get("membership", {}).get("arms", ()):
        positives, area, against = (
            each["true_positives"],
            each["area_under_curve"],
            each.get("area_against_dense"),
        )
        share = "too few outsiders" if positives is None else _share(positives)
        interval = against and against["interval"]
        ends = "" if not interval else " [{:+.3f}, {:+.3f}]".format(*interval)
        lines.append(
            (
                each["arm"],
                share,
                "-" if area is None else f"{area:.3f}",
                "" if against is None else f"{against['mean']:+.3f}{ends}",
                f"{each['members']:,} members, {each['outsiders']:,} outsiders, {each['clients']} clients",
            )
        )
    return lines


def audit_tables(found: Row) -> Iterator[Table]:
    """One table per kind of answer; none for what was not asked."""
    canaries = found.get("canaries")
    if canaries:
        verdict = "a canary is outside its device" if canaries["found"] else "no canary is outside its device"
        title = (
            f"{found['scenario']}: {verdict} (client {canaries['client']}: {', '.join(canaries['planted'])})"
        )
        yield _table(title, ("place", "looked at", "found"), place_lines(found))
    if lines := known_lines(found):
        yield _table("what reports tell (95 % confidence)", HEADINGS, lines)
    if arms := arm_lines(found):
        yield _table("a stolen device: was a row trained on?", ARM_HEADINGS, arms)
    for part, why in found["skipped"].items():
        if why != "not asked for":
            yield Table(title=f"{part}: not audited, for {why}")


def _table(title: str, headings: tuple[str, ...], lines: Any) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table

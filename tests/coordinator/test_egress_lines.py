"""The lines of egress.jsonl say the fields of a message once, not of each."""

from fedge.coordinator.view.each import fields_once


def test_fields_are_said_where_they_change() -> None:
    """Breaks if a line's fields could be taken for those of another message, or if every line repeats them."""
    a, b = ["report.round"], ["error"]
    rows = [{"client": client, "bytes": 9, "fields": fields} for client, fields in enumerate([a, a, b, a])]
    assert fields_once(rows) == [rows[0], {"client": 1, "bytes": 9}, rows[2], rows[3]]
    assert fields_once([]) == []

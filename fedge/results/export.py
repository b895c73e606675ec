"""Rows of results as a table that other programs read: csv, or parquet with the columns' types."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedge.errors import RunError, UserError

if TYPE_CHECKING:
    import pandas

FORMATS = ("csv", "parquet")

Row = Mapping[str, Any]


def table_of(rows: Sequence[Row]) -> "pandas.DataFrame":
    """A column per key, in the order in which keys first appear. Whole numbers stay whole where some rows have none."""
    import pandas

    columns = list(dict.fromkeys(key for row in rows for key in row))
    return pandas.DataFrame({name: _column([row.get(name) for row in rows]) for name in columns})


def _column(values: Sequence[Any]) -> "pandas.Series":
    import pandas

    there = [value for value in values if value is not None]
    whole = len(there) < len(values) and all(type(value) is int for value in there)
    return pandas.Series(values, dtype="Int64" if whole else None)


def require_format(kind: str) -> None:
    """UserError for what is none of FORMATS."""
    if kind not in FORMATS:
        raise UserError(f"--to is {kind!r}; one of: {', '.join(FORMATS)}")


def write_table(rows: Sequence[Row], path: Path, kind: str) -> None:
    """Write `rows` to `path` as `kind` of FORMATS; whole or not at all. UserError where it cannot be written."""
    if not rows:
        raise UserError(f"there are no rows to write to {path}: nothing has been reported yet")
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table = table_of(rows)
        if kind == "csv":
            table.to_csv(partial, index=False)
        else:
            table.to_parquet(partial, index=False)
        partial.replace(path)
    except ImportError as error:
        raise RunError(
            f"writing {kind} takes pandas and pyarrow ({error}): pip install pandas pyarrow"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}; give another --out") from None
    finally:
        partial.unlink(missing_ok=True)

"""Finds scenarios, studies, client programs and policies, by name or by path.

Names are those of the files in `scenarios/`, `studies/`, `clients/` and `policies/`: beside the package in a checkout,
inside it when installed from a wheel.
"""

from pathlib import Path

from fedge.catalog.names import did_you_mean
from fedge.errors import UserError

_SINGULAR = {"scenarios": "scenario", "studies": "study", "clients": "client", "policies": "policy"}
_SUFFIXES = {"scenarios": ".toml", "studies": ".toml", "clients": ".py", "policies": ".py"}
_PACKAGE = Path(__file__).resolve().parent.parent


def scenario_path(name: str) -> Path:
    """`quickstart`, or the path of a TOML file."""
    return _find(name, "scenarios", ".toml")


def study_path(name: str) -> Path:
    """`what-pays`, or the path of a TOML file."""
    return _find(name, "studies", ".toml")


def client_path(name: str) -> Path:
    """`edge`, or the path of a Python file or of a package's folder."""
    return _find(name, "clients", ".py")


def policy_path(name: str) -> Path:
    """`deadline`, or the path of a Python file or of a package's folder."""
    return _find(name, "policies", ".py")


def shipped_path(name: str) -> Path:
    """The file of a shipped scenario, study, client program or policy. UserError names the nearest of all."""
    for kind, suffix in _SUFFIXES.items():
        if name in _names(kind, suffix):
            return _folder(kind) / f"{name}{suffix}"
    raise UserError(f"nothing called {name!r} is shipped; {did_you_mean(name, shipped_names())}")


def shipped_names() -> list[str]:
    """Of all that is shipped."""
    return [name for kind, suffix in _SUFFIXES.items() for name in _names(kind, suffix)]


def scenario_names() -> list[str]:
    return _names("scenarios", ".toml")


def study_names() -> list[str]:
    return _names("studies", ".toml")


def client_names() -> list[str]:
    return _names("clients", ".py")


def policy_names() -> list[str]:
    return _names("policies", ".py")


def _folder(kind: str) -> Path:
    inside = _PACKAGE / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def _names(kind: str, suffix: str) -> list[str]:
    return sorted(path.stem for path in _folder(kind).glob(f"*{suffix}") if not path.stem.startswith("_"))


def _find(name: str, kind: str, suffix: str) -> Path:
    path = Path(name).expanduser()
    if path.suffix == suffix or len(path.parts) > 1:
        if path.is_file() or (suffix == ".py" and (path / "__init__.py").is_file()):
            return path
        if path.is_dir():
            inside = (
                "an __init__.py in it, or name one of its files" if suffix == ".py" else f"a {suffix} file"
            )
            raise UserError(f"{name} is a folder; it needs {inside}")
        raise UserError(f"{name}: no such file")
    path = _folder(kind) / f"{name}{suffix}"
    if name in _names(kind, suffix):
        return path
    names = _names(kind, suffix)
    raise UserError(
        f"no {_SINGULAR[kind]} called {name!r}; {did_you_mean(name, names)} "
        f"(or give the path of a {suffix} file)"
    )

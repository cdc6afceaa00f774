"""The libraries that only reports need."""

from importlib.util import find_spec

from nlnet.errors import UserError

LIBRARIES = ("jinja2", "matplotlib")


def require_libraries() -> None:
    """Raise UserError if a library of the extra `report` is not installed."""
    absent = [name for name in LIBRARIES if find_spec(name) is None]
    if absent:
        raise UserError(f"{', '.join(absent)}: not installed; run pip install 'nlnet[report]'")

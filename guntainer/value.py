"""Immutable, keyword-only values, without the half millisecond that each dataclass adds to an import.

Owns the base class of everything that is passed forward through the program: jobs, mounts, exits, results. The warm
`guntainer run` path imports it, so it imports nothing itself. Type checkers see a frozen dataclass.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, dataclass_transform
else:

    def dataclass_transform(**_kw):
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Value:
    """A record whose fields are its class's annotations; a class attribute of the same name is the default."""

    def __init__(self, **fields: Any) -> None:
        names = self.fields()
        store = self.__dict__
        for name in names:
            if name in fields:
                store[name] = fields.pop(name)
            elif not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__}: {name} is missing")
        if fields:
            raise TypeError(f"{type(self).__name__}: unknown field {next(iter(fields))!r}")

    @classmethod
    def fields(cls) -> tuple[str, ...]:
        """The names of the fields, in the order in which they were written."""
        names = cls.__dict__.get("_names")
        if names is None:
            found: dict[str, None] = {}
            for base in reversed(cls.__mro__):
                for name in getattr(base, "__annotations__", {}):
                    if not name.startswith("_"):
                        found[name] = None
            names = tuple(found)
            cls._names = names  # type: ignore[attr-defined]
        return names

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.fields()}

    def replace(self, **changes: Any) -> Self:
        """The same value with some fields changed."""
        return type(self)(**{**self.as_dict(), **changes})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can not be set: values are immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} can not be deleted: values are immutable")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.fields()))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields() if name in self.__dict__)
        return f"{type(self).__name__}({shown})"

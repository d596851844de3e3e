"""Registries: a backbone, target, rival or data set is one new file and no change elsewhere."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownNameError(LookupError):
    """A name that nothing was registered under; the message lists the names that were."""


class Registry(Generic[T]):
    """Names -> things, filled by the modules of one package when a name is first looked up."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: `@registry.register("name")` above a class or function."""

        def add(entry: T) -> T:
            known = self._entries.setdefault(name, entry)
            if known is not entry and repr(known) != repr(entry):
                raise ValueError(f"{self.kind} {name!r} is registered twice: {known!r}, {entry!r}")
            self._entries[name] = entry
            return entry

        return add

    def _load(self) -> None:
        if self._loaded:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._loaded = True

    def __getitem__(self, name: str) -> T:
        self._load()
        if name not in self._entries:
            known = ", ".join(sorted(self._entries))
            raise UnknownNameError(f"no {self.kind} is called {name!r}; there are: {known}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._entries))

    def summaries(self) -> dict[str, str]:
        """Name -> first line of the docstring."""
        return {name: (self[name].__doc__ or "").strip().partition("\n")[0] for name in self}

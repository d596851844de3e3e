"""What can be wrong with a Core ML package, or with asking it something."""


class PackageError(ValueError):
    """A package that cannot be read or run; the message says where, and what was expected."""


class UnknownOperationError(PackageError):
    """An operation, or an input of one, that the interpreter has no meaning for."""

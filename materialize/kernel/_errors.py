"""What can be wrong with a definition that the kernel is asked to compute.

KernelError
├── WindowError
└── UnknownFunctionError
"""


class KernelError(ValueError):
    """A definition or an array that the kernel cannot work with."""


class WindowError(KernelError):
    """A window or a hop that does not make sense."""


class UnknownFunctionError(KernelError):
    """An aggregation function that the kernel does not have."""

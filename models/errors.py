"""What can go wrong with a model, each with what to do about it.

ModelError
├── UnsupportedModelError   the model uses something that cannot be served or explained exactly
├── ExportMismatchError     the exported graph does not compute what the native model computes
├── TrainingError           the training set cannot give a model
├── MissingExtraError       a package of an optional extra is not installed
├── InputError              rows or arguments of a wrong shape, type or value
└── BundleError             a bundle on disk cannot be trusted
    ├── BundleNotFoundError   no such model, version, alias or file
    ├── BundleCorruptError    contents differ from what was published
    ├── GoldenMismatchError   this machine computes other values than those published
    ├── AliasMovedError       somebody else changed the same alias meanwhile
    ├── RolloutMovedError     somebody else changed the same rollout meanwhile
    ├── StoreUnavailableError the store's service did not answer
    ├── UnsupportedStoreError this kind of store cannot be opened, or cannot do this safely
    └── UnsafeNameError       a name that could leave the store
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of every error raised by this package."""


class UnsupportedModelError(ModelError):
    """The model uses something that cannot be served or explained exactly."""


class ExportMismatchError(ModelError):
    """The exported graph does not compute what the native model computes."""


class TrainingError(ModelError):
    """The training set or the settings cannot give a model."""


class MissingExtraError(ModelError):
    """A package of an optional extra is not installed."""


class InputError(ModelError):
    """Rows or arguments of a wrong shape, type or value."""


class BundleError(ModelError):
    """A bundle on disk cannot be trusted."""


class BundleNotFoundError(BundleError):
    """No such model, version, alias or file."""


class BundleCorruptError(BundleError):
    """Contents differ from what was published."""


class GoldenMismatchError(BundleError):
    """This machine computes other values than those published."""


class AliasMovedError(BundleError):
    """Somebody else changed the same alias meanwhile."""


class RolloutMovedError(BundleError):
    """Somebody else changed the same rollout meanwhile."""


class StoreUnavailableError(BundleError):
    """The store's service did not answer."""


class UnsupportedStoreError(BundleError):
    """This kind of store cannot be opened, or cannot do this safely."""


class UnsafeNameError(BundleError):
    """A name that could leave the store."""

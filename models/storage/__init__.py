"""Where bundles are kept: files by name below one root, in a directory or at any address that fsspec knows."""

from models.storage._directory import DirectoryStorage
from models.storage._open import storage_of
from models.storage._protocol import Storage
from models.storage._remote import RemoteStorage

__all__ = ["DirectoryStorage", "RemoteStorage", "Storage", "storage_of"]

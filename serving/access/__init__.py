"""Who may ask what, and how often: API keys, tokens, scopes, and a token bucket for each client."""

from serving.access.buckets import Buckets, Limit
from serving.access.client import Client, Known
from serving.access.configure import open_gate, require_access_beyond_loopback
from serving.access.files import AccessFileError, WatchedFile
from serving.access.guard import Gate, Guard, LoopbackGate, follow, is_loopback
from serving.access.keys import KeyEntry, KeyFile, change_keys, digest_of, known_keys, new_key, read_keys
from serving.access.routes import ADMIN, ANY_KEY, FEATURES_READ, OPEN, SCOPES, SCORE, need_of

__all__ = [
    "ADMIN",
    "ANY_KEY",
    "FEATURES_READ",
    "OPEN",
    "SCOPES",
    "SCORE",
    "AccessFileError",
    "Buckets",
    "Client",
    "Gate",
    "Guard",
    "KeyEntry",
    "KeyFile",
    "Known",
    "Limit",
    "LoopbackGate",
    "WatchedFile",
    "change_keys",
    "digest_of",
    "follow",
    "is_loopback",
    "known_keys",
    "need_of",
    "new_key",
    "open_gate",
    "read_keys",
    "require_access_beyond_loopback",
]

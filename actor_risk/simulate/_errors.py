"""What can go wrong in the simulator.

SimulationError
├── InvalidSettingsError    a size, share or time span that cannot be simulated
├── InvalidClicksFileError  the real clicks file is missing or is another file
└── UnknownTopicError       lines were asked for a topic that does not exist
"""

from __future__ import annotations


class SimulationError(Exception):
    """Base of everything that this package raises on purpose."""


class InvalidSettingsError(SimulationError, ValueError):
    """The settings cannot be simulated; the message names the setting and its bounds."""


class InvalidClicksFileError(SimulationError, ValueError):
    """The clicks file is missing or has other columns; the message says what is expected."""


class UnknownTopicError(SimulationError, ValueError):
    """There is no such event topic; the message lists those that exist."""

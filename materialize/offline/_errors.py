"""What can be wrong with history."""


class HistoryError(ValueError):
    """History that cannot be read or used; the message names the file and says what is missing."""

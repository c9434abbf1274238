"""What every report of ours is made with: words for numbers and times, a page, pictures. It imports nothing heavy."""

from actor_risk.reporting import drawing, page, words

__all__ = ["drawing", "page", "words"]

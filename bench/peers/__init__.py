"""What we compare ourselves with, used as its own documentation says and given its best configuration."""

"""`python -m actor_risk.cli`."""

from actor_risk.cli import main

if __name__ == "__main__":
    main()

"""Every performance claim, each beside its peer in the same run. `python -m bench --help` lists them."""

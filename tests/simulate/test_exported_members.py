"""The public names of the package."""

from __future__ import annotations

import actor_risk.simulate as package


def test_all_names_what_the_package_offers_and_nothing_private() -> None:
    assert package.__all__ == sorted(package.__all__)
    assert all(hasattr(package, name) and not name.startswith("_") for name in package.__all__)

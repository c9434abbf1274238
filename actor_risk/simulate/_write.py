"""A simulation as Parquet files, each of them whole or not there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq

from actor_risk.simulate._simulation import Simulation

FILES = {
    "ad_events": "ad_events/part-0000.parquet",
    "account_events": "account_events/part-0000.parquet",
    "ad_click_labels": "labels/ad_click_risk.parquet",
    "advertiser_labels": "labels/advertiser_risk.parquet",
    "advertiser_profiles": "profiles/advertiser_profiles.parquet",
    "creator_profiles": "profiles/creator_profiles.parquet",
    "ip_profiles": "profiles/ip_profiles.parquet",
    "device_profiles": "profiles/device_profiles.parquet",
}
"""Where each table of a `Simulation` lies below its directory."""

_STAGING = ".staging"
_ROWS_PER_GROUP = 65_536


def write(simulation: Simulation, directory: Path) -> None:
    """Write every table to `directory`, at the places that `FILES` names; files of an earlier run are replaced.

    1. Write all tables below `.staging`, after removing what a killed run has left there.
    2. Rename each file to its place: a reader sees the old file or the new one, never half of one.
    3. Remove `.staging`, also when a step before has failed.

    A directory has one writer at a time. `event_time` has row-group statistics, so a reader may ask for a day.
    Raises OSError when the directory cannot be written.
    """
    staging = directory / _STAGING
    shutil.rmtree(staging, ignore_errors=True)
    try:
        for name, place in FILES.items():
            target = staging / place
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(getattr(simulation, name), target, row_group_size=_ROWS_PER_GROUP, compression="zstd")
        for place in FILES.values():
            (directory / place).parent.mkdir(parents=True, exist_ok=True)
            (staging / place).replace(directory / place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)

"""Where traffic comes from: ips (homes, shared ones, data centres) and the devices behind them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

from actor_risk.simulate._arrays import FloatArray, IntArray, cumulative, draw_by, happens
from actor_risk.simulate._settings import SimulationSettings

COUNTRIES = ("US", "BR", "IN", "DE", "ID", "GB", "FR", "MX", "JP", "NG", "VN", "TR", "PH", "ES", "PL", "CA")
OS_NAMES = (
    "android-14",
    "android-13",
    "ios-18",
    "android-12",
    "ios-17",
    "android-11",
    "windows",
    "android-10",
    "macos",
)
_OS_SHARES = np.array([0.22, 0.18, 0.17, 0.12, 0.11, 0.07, 0.06, 0.04, 0.03])
_SHARED_IP_SHARE = 0.03
_AT_HOME = 0.65
_ELSEWHERE = 0.03


@dataclass(frozen=True)
class Places:
    """ips and devices by index; `shared_ips` are offices and carriers with many honest devices behind them."""

    ip_country: IntArray
    shared_ips: IntArray
    home_ip: IntArray
    second_ip: IntArray
    device_os: IntArray
    device_cdf: FloatArray
    click_share: FloatArray

    def devices(self, rng: np.random.Generator, n: int) -> IntArray:
        """n devices, the active ones more often."""
        return draw_by(rng, self.device_cdf, n)

    def ips_of(self, rng: np.random.Generator, devices: IntArray) -> IntArray:
        """Where each device is just now: mostly at home, else behind its office or carrier, rarely anywhere."""
        n = len(devices)
        usual = np.where(happens(rng, _AT_HOME, n), self.home_ip[devices], self.second_ip[devices])
        return np.where(happens(rng, _ELSEWHERE, n), rng.integers(0, len(self.ip_country), n), usual)


def build_places(rng: np.random.Generator, settings: SimulationSettings) -> Places:
    """The ips and devices of a world, before any of them is abused."""
    shuffled = rng.permutation(settings.ips)
    shared = shuffled[: max(4, int(settings.ips * _SHARED_IP_SHARE))].astype(np.int64)
    crowd = cumulative(falling(len(shared), 0.8))
    return Places(
        ip_country=country_of_ips(f"ip-{index}" for index in range(settings.ips)),
        shared_ips=shared,
        home_ip=shuffled[rng.integers(len(shared), settings.ips, settings.devices)].astype(np.int64),
        second_ip=shared[draw_by(rng, crowd, settings.devices)],
        device_os=os_of_devices(f"device-{index}" for index in range(settings.devices)),
        device_cdf=cumulative(np.exp(1.3 * rng.standard_normal(settings.devices))),
        click_share=rng.beta(4.0, 6.0, settings.devices),
    )


def country_of_ips(names: Iterable[str]) -> IntArray:
    """The index into `COUNTRIES` of each ip: it depends on the name alone, so a burst agrees with the history."""
    return _by_name(names, falling(len(COUNTRIES), 0.6))


def os_of_devices(names: Iterable[str]) -> IntArray:
    """The index into `OS_NAMES` of each device: it depends on the name alone, so a burst agrees with the history."""
    return _by_name(names, _OS_SHARES)


def falling(n: int, exponent: float) -> FloatArray:
    """Zipf's weights `rank ** −exponent` of ranks 1 to n."""
    return np.arange(1, n + 1, dtype=np.float64) ** -exponent


def _by_name(names: Iterable[str], shares: FloatArray) -> IntArray:
    hashes = np.fromiter((crc32(name.encode()) for name in names), np.int64)
    return np.searchsorted(cumulative(shares), hashes / 2**32, side="right").astype(np.int64)

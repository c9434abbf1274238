"""The Ray Serve application: `serve deploy ray_config.yaml`, or `serving.app:app` by hand.

One deployment: a request is answered by one replica in one process. Only this module, `edge` and `ray_counts` know Ray.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import time
from typing import Annotated, Any, Literal

import msgspec
from ray import serve
from ray.serve.context import _get_global_client

from serving.access import follow, require_access_beyond_loopback
from serving.asgi import ScoringApp
from serving.bootstrap import build_server
from serving.edge import DOOR
from serving.errors import ModelLoadError, SettingsError
from serving.fast_path import fast_path_notes
from serving.json_logs import log_as_json
from serving.policy import Policy
from serving.rollouts import RolloutFollower
from serving.scheduling import interrupt_nobody
from serving.scoring import ScoringService
from serving.settings import Settings

DEPLOYMENT = "scoring"
MAX_ONGOING_REQUESTS = 256
MAX_QUEUED_REQUESTS = 256
WAIT_BETWEEN_LOADS_S = 0.5

_PACKAGE = "serving"
_MS_PER_S = 1000
_LOG = logging.getLogger(__name__)


class UserConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `user_config` says: model name → alias or version, or policy.

    rollouts: `store`: a model that has rollouts in the model store answers by the newest one, instead of what is said
    here (`actor-risk rollout`); `off`: they are not looked at.
    wait_for_models_s: how long a server without any model waits for these to appear and fit, instead of failing at its
    start. /readyz says that it waits.
    """

    models: dict[str, str | Policy]
    rollouts: Literal["store", "off"] = "store"
    wait_for_models_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class Scoring:
    """One replica. Ray asks it for its ASGI application, then calls `reconfigure` with the user_config."""

    def __init__(self) -> None:
        began = time.monotonic()
        self._waiting: asyncio.Task[None] | None = None
        self._following: asyncio.Future[Any] | None = None
        try:
            self._settings = Settings.from_environment(os.environ)
            if self._settings.sched_batch:
                interrupt_nobody()
            _begin_log(self._settings.log_format)
            notes = fast_path_notes(os.environ)
            for note in notes:
                _LOG.warning(note)
            if not notes:
                _LOG.info("Ray Serve's fast path (HAProxy and throughput mode) is on")
            require_access_beyond_loopback(self._settings, _http_host())
            self._server = build_server(self._settings, notes)
            self._server.app.stand_at(DOOR)
            _LOG.info("set up in %.2f s, %s", time.monotonic() - began, _cpu_so_far())
        except SettingsError as error:
            sys.stderr.write(f"{error}\n")  # Ray shows it to whoever runs the server; what it raises goes into files
            raise

    def __serve_build_asgi_app__(self) -> ScoringApp:
        return self._server.app

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Serve the models that `user_config` names, without a restart."""
        if self._waiting is not None:
            self._waiting.cancel()  # or it would load, later, what the config before this one said
        server, settings = self._server, self._settings
        DOOR.open(server.app.answer, asyncio.get_running_loop())
        self._waiting = await apply_user_config(server.rollouts, user_config)
        if self._following is None:
            self._following = asyncio.gather(
                follow_registry(server.service, settings.registry_poll_ms / _MS_PER_S),
                follow_rollouts(server.rollouts, settings.rollout_poll_ms / _MS_PER_S),
                follow(server.gate),
            )


def _http_host() -> str | None:
    """The address that Ray Serve listens at, proxies and replicas alike. Ray has no public way to ask for it."""
    host: str | None = _get_global_client().http_config.host
    return host


def _cpu_so_far() -> str:
    """What starting has cost this process until now, mostly imports."""
    return f"{time.process_time():.1f} s of CPU since the process began"


async def follow_registry(service: ScoringService, every_s: float) -> None:
    """Take over what `feast apply` changes, looking every so often, for ever."""
    while True:
        await asyncio.sleep(every_s)
        try:
            if await service.follow_registry():
                _LOG.info("the feature registry has changed, and is read by from now on")
        except Exception as error:  # a registry that cannot be read now, for whatever reason, may be next time
            _LOG.warning("the feature registry could not be read: %s", error)


async def follow_rollouts(rollouts: RolloutFollower, every_s: float) -> None:
    """Take over what `actor-risk rollout` sets, looking every so often, for ever."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await rollouts.follow()
        except Exception as error:  # the next one may be another
            _LOG.warning("the rollouts could not be followed: %s", error)


async def wait_for_models(rollouts: RolloutFollower, config: UserConfig) -> None:
    """Load the models as soon as they can be loaded. Gives up, with the reason in the log, when the time is over."""
    deadline = time.monotonic() + config.wait_for_models_s
    while not rollouts.has_models:
        try:
            await _load(rollouts, config)
        except Exception as error:  # whatever it is, it may pass
            if time.monotonic() > deadline:
                _LOG.error("no model to serve after %.0f s: %s", config.wait_for_models_s, error)
                return
            await asyncio.sleep(WAIT_BETWEEN_LOADS_S)


async def _load(rollouts: RolloutFollower, config: UserConfig) -> None:
    """The first time the replica is not ready before it has answered."""
    is_first, began = not rollouts.has_models, time.monotonic()
    await rollouts.load(config.models, by_rollouts=config.rollouts == "store")
    if is_first:
        loaded = time.monotonic()
        await rollouts.warm_up()
        gc.collect()
        gc.freeze()  # what is loaded now stays: a collection in the middle of a request need not look at it again
        _LOG.info("models loaded in %.2f s, warmed up in %.2f s", loaded - began, time.monotonic() - loaded)


async def apply_user_config(rollouts: RolloutFollower, user_config: object) -> asyncio.Task[None] | None:
    """Load what `{"models": {name: alias or version}}` names, or give the task that waits for it.

    Raises ModelLoadError while nothing is served yet. Later a config that cannot be served is refused and the old
    models stay: Ray would answer an exception with a new replica, which could not start either. The refusal is in the
    log, and in the notes of /readyz.
    """
    try:
        config = parse_user_config(user_config)
        if config.wait_for_models_s and not rollouts.has_models:
            return asyncio.create_task(wait_for_models(rollouts, config))
        await _load(rollouts, config)
    except Exception as error:  # whatever it is, an outage is the worse answer to a wrong config
        if not rollouts.has_models:
            raise
        _LOG.error("the new user_config is refused, the old models stay: %s", error)
    return None


def parse_user_config(user_config: object) -> UserConfig:
    """The config that `{"models": {name: alias or version}}` says. Raises ModelLoadError for anything else."""
    try:
        return msgspec.convert(user_config, UserConfig)
    except msgspec.ValidationError as error:
        raise ModelLoadError(f"user_config must look like {{'models': {{name: alias}}}}: {error}") from error


class _RayServeLog(logging.Handler):
    """Hands records to Ray Serve's own logger, the only one that it writes to the replica's log file, and flushes.

    In throughput mode Ray keeps a thousand records in memory; this package logs little, and what it logs matters.
    """

    def emit(self, record: logging.LogRecord) -> None:
        log = logging.getLogger("ray.serve")
        log.handle(record)
        for handler in log.handlers:
            handler.flush()


def _begin_log(log_format: str) -> None:
    if log_format == "json":
        log_as_json(sys.__stderr__ or sys.stderr)  # Ray Serve takes the other for its own log, and keeps it in memory
        return
    package = logging.getLogger(_PACKAGE)
    package.setLevel(logging.INFO)
    package.addHandler(_RayServeLog())


app = serve.deployment(
    serve.ingress()(Scoring),
    name=DEPLOYMENT,
    max_ongoing_requests=MAX_ONGOING_REQUESTS,
    max_queued_requests=MAX_QUEUED_REQUESTS,
).bind()

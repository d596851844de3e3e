"""Deployment files name only what the server has: options, variables, ports, paths, times.

No image is built and no cluster started here. The chart's templates are rendered by Go's own
engine, where there is one.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from gunicorn.config import GracefulTimeout

from persona.cli.serve import serve
from persona_cloud.database import CONNECT_SECONDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cloud" / "deploy"
CHART = DEPLOY / "helm" / "persona-cloud"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
USER = 10001


def instructions(name):
    """Every instruction of this name in the Dockerfile, lines joined."""
    lines = DOCKERFILE.replace("\\\n", " ").splitlines()
    return [line.partition(" ")[2].strip() for line in lines if line.startswith(f"{name} ")]


def variables():
    """The environment variables that `persona serve` reads."""
    return {option.envvar for option in serve.params if getattr(option, "envvar", None)}


def served(words):
    """What `persona` makes of a container's command: the values of `serve`'s options."""
    assert words[0] == "serve"
    return serve.make_context("serve", words[1:]).params


def image_command():
    return json.loads(instructions("CMD")[-1])


def test_the_image_starts_the_server_with_options_that_it_has():
    assert json.loads(instructions("ENTRYPOINT")[-1]) == ["persona"]
    options = served(image_command())
    assert (options["host"], options["run"], options["bundle"]) == (
        "0.0.0.0",
        Path("run"),
        Path("bundle"),
    )
    assert instructions("EXPOSE") == [str(options["port"])]
    assert f"127.0.0.1:{options['port']}/readyz" in DOCKERFILE


def test_an_option_that_the_server_lacks_is_noticed():
    with pytest.raises(click.UsageError):
        served([*image_command(), "--no-such-option"])


def test_the_image_runs_without_root_and_is_built_in_two_stages():
    assert instructions("USER") == [f"{USER}:{USER}"]
    assert len(instructions("FROM")) == 2
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-", DOCKERFILE, re.M)
    for copied in instructions("COPY"):
        sources = [w for w in shlex.split(copied)[:-1] if not w.startswith("--")]
        if "--from" not in copied:
            assert all((ROOT / source).exists() for source in sources), copied


def test_no_key_or_database_reaches_the_builder():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignored.index("*") < ignored.index("!cloud") < ignored.index("**/*.pem")
    assert {"**/keys", "**/*.sqlite", "**/*.pem"} <= set(ignored)


def pins(path):
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", path.read_text(), re.M)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def test_the_image_has_the_versions_that_tests_ran_with():
    image, locked = pins(DEPLOY / "requirements.txt"), pins(ROOT / "requirements.lock")
    assert {name: version for name, version in image.items() if locked.get(name) != version} == {}


ONLY_THE_IMAGE = """
import re, sys
from importlib import metadata
named = {re.sub(r"[-_.]+", "-", n).lower() for n in sys.argv[4:]} | {"persona-edge"}
there = metadata.packages_distributions()
class Missing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        owners = {re.sub(r"[-_.]+", "-", n).lower() for n in there.get(top, ())}
        if owners and not owners & named:
            raise ModuleNotFoundError(f"{name} is not in the image", name=name)
sys.meta_path.insert(0, Missing())
from pathlib import Path
from persona.cli.serve import serve
import persona_cloud.serving, psycopg, redis
from persona_cloud import CloudConfig, create_app
create_app(CloudConfig(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
print("served")
"""


def test_the_image_has_every_package_that_the_server_imports(run, bundle, tmp_path):
    database = f"sqlite:///{tmp_path / 'cloud.sqlite'}"
    words = [run.path, bundle.path, database, *pins(DEPLOY / "requirements.txt")]
    done = subprocess.run(
        [sys.executable, "-c", ONLY_THE_IMAGE, *words], capture_output=True, text=True, check=False
    )
    assert done.stdout == "served\n", done.stderr


def test_compose_starts_the_server_as_the_image_is_made():
    cloud = COMPOSE["cloud"]
    assert served(cloud["command"])["port"] == served(image_command())["port"]
    assert set(cloud["environment"]) == {"DATABASE_URL", "REDIS_URL"} <= variables()
    assert cloud["ports"] == ["127.0.0.1:8080:8080"]
    assert (DEPLOY / cloud["build"]["context"] / cloud["build"]["dockerfile"]).resolve() == (
        DEPLOY / "Dockerfile"
    )
    for name in ("DATABASE_URL", "REDIS_URL"):
        host = re.search(r"(?:@|//)([a-z]+)(?::6379$|/persona$)", cloud["environment"][name])[1]
        assert COMPOSE[host]["healthcheck"]
        assert cloud["depends_on"][host] == {"condition": "service_healthy"}


def test_compose_pins_its_images_and_writes_only_where_it_must():
    for service in COMPOSE.values():
        assert re.search(r":\d+\.\d+(\.\d+)?", service["image"])
    for name in ("cloud", "redis"):
        assert COMPOSE[name]["read_only"] is True
        assert COMPOSE[name]["cap_drop"] == ["ALL"]
    assert COMPOSE["cloud"]["tmpfs"][0].startswith("/tmp:")


def graceful_seconds():
    """How long a worker finishes what is in flight after SIGTERM."""
    return GracefulTimeout.default


def test_a_stop_leaves_time_to_finish_what_is_in_flight():
    assert int(COMPOSE["cloud"]["stop_grace_period"].removesuffix("s")) > graceful_seconds()
    drains = VALUES["drainSeconds"] + graceful_seconds()
    assert VALUES["terminationSeconds"] > drains


@pytest.fixture(scope="module")
def render():
    """Renders the chart with some values changed; returns its documents by kind."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("NOT TESTED with Go's templates: install Debian's package golang-go")

    def chart(**changed):
        about = yaml.safe_load((CHART / "Chart.yaml").read_text())
        scope = {
            "Values": VALUES | changed,
            "Release": {"Name": "demo", "Service": "Helm"},
            "Chart": {
                "Name": about["name"],
                "Version": about["version"],
                "AppVersion": about["appVersion"],
            },
        }
        program = Path(__file__).parent / "render_chart.go"
        done = subprocess.run(
            [go, "run", program, CHART / "templates"],
            input=json.dumps(scope),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        documents = [yaml.safe_load(text) for text in json.loads(done.stdout).values()]
        return {document["kind"]: document for document in documents if document}

    return chart


def test_the_chart_starts_the_server_with_options_and_variables_that_it_has(render):
    documents = render()
    assert set(documents) == {"Deployment", "Service", "PodDisruptionBudget"}
    pod = documents["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    options = served(container["args"])
    assert container["ports"] == [{"name": "http", "containerPort": options["port"]}]
    assert (options["workers"], options["proxies"]) == (VALUES["workers"], VALUES["proxies"])
    assert (
        {entry["name"] for entry in container["env"]}
        == {"DATABASE_URL", "REDIS_URL"}
        <= variables()
    )
    assert pod["spec"]["securityContext"]["runAsUser"] == USER
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert places["state"] == instructions("WORKDIR")[-1]
    assert set(places) == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_the_chart_asks_routes_that_are_there_and_waits_longer_than_the_database(render, http):
    (container,) = render()["Deployment"]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert http.get(container[probe]["httpGet"]["path"]).status_code == 200
        assert container[probe]["httpGet"]["port"] == "http"
    assert container["readinessProbe"]["timeoutSeconds"] >= CONNECT_SECONDS


def test_the_service_and_the_budget_select_the_pods_of_the_deployment(render):
    documents = render()
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        documents["Service"]["spec"]["selector"],
        documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        documents["Deployment"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert documents["Service"]["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": "http"}
    ]


def test_ingress_and_autoscaling_point_at_the_service_and_the_deployment(render):
    documents = render(
        ingress=VALUES["ingress"] | {"enabled": True, "annotations": {"a": "b"}},
        autoscaling=VALUES["autoscaling"] | {"enabled": True},
        nodeSelector={"disk": "fast"},
    )
    backend = documents["Ingress"]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend["name"] == documents["Service"]["metadata"]["name"]
    target = documents["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == documents["Deployment"]["metadata"]["name"]
    assert "replicas" not in documents["Deployment"]["spec"]
    assert documents["Deployment"]["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "fast"}


def test_every_value_is_used_and_every_value_used_is_there():
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    used = {tuple(name.split(".")) for name in re.findall(r"\.Values\.([A-Za-z.]+)", text)}
    for path in used:
        found = VALUES
        for part in path:
            assert part in found, path
            found = found[part]
    assert {path[0] for path in used} == set(VALUES)

"""config/kubernetes: what the overlays make is valid, runs without privileges, and fits together.

kustomize itself makes it (`kustomize`, or `kubectl`, which has it inside). Where neither is
installed, only the files of the base are validated.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft202012Validator, ValidationError

from store_cache.app.build import WRITES_GRACE_SECONDS
from store_cache.app.serve import REQUESTS_GRACE_SECONDS
from store_cache.app.settings import Settings, load_settings

FOLDER = Path(__file__).parents[2] / "config/kubernetes"
OVERLAYS = sorted(path.name for path in (FOLDER / "overlays").iterdir())
KUBERNETES = "1.32"
GATEWAY_API = Path(__file__).parent / "gateway_api"

KEYS = {"CENTRAL_API_KEY": "a-key-for-central", "API_KEYS": "a-key-of-till-one"}
"""What the secret holds, which an operator creates."""

OPEN_PATHS = {"/health", "/ready"}

Resource = dict[str, Any]


def validate(resource: Resource) -> None:
    # It takes seconds, and not every process of the tests comes here.
    import kubernetes_validate  # type: ignore[import-untyped]  # noqa: PLC0415

    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


_KUSTOMIZE = next(
    (
        command
        for command in (["kustomize", "build"], ["kubectl", "kustomize"])
        if shutil.which(command[0])
    ),
    None,
)
rendered = pytest.mark.skipif(
    _KUSTOMIZE is None, reason="neither kustomize nor kubectl is installed"
)
each_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


@lru_cache
def render(overlay: str) -> dict[str, Resource]:
    """The resources of an overlay by kind, Services as `Service` and `Headless`. Routes are not
    among them: `routes`."""
    assert _KUSTOMIZE is not None
    done = subprocess.run(
        [*_KUSTOMIZE, str(FOLDER / "overlays" / overlay)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    resources = [
        resource
        for resource in yaml.safe_load_all(done.stdout)
        if not resource["kind"].endswith("Route")
    ]
    by_kind = {_kind(resource): resource for resource in resources}
    assert len(resources) == len(by_kind)
    return by_kind


def _kind(resource: Resource) -> str:
    is_headless = resource["spec"].get("clusterIP") == "None" if "spec" in resource else False
    return "Headless" if is_headless else str(resource["kind"])


def pod(overlay: str) -> Resource:
    spec: Resource = render(overlay)["StatefulSet"]["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> Resource:
    [one] = pod(overlay)["containers"]
    assert isinstance(one, dict)
    return one


# -- valid -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    sorted(path for path in (FOLDER / "base").glob("*.yaml") if path.stem != "kustomization"),
    ids=lambda path: path.stem,
)
def test_files_of_the_base_are_valid(path: Path) -> None:
    """They follow the schemas of Kubernetes, but for the selector, which kustomize adds."""
    for resource in yaml.safe_load_all(path.read_text()):
        if resource["kind"] == "StatefulSet":
            resource["spec"]["selector"] = {"matchLabels": {"app": "store-cache"}}
        validate(resource)


@rendered
@each_overlay
def test_overlay_is_valid(overlay: str) -> None:
    """Each resource follows the schemas of Kubernetes, strictly: no field that does not exist."""
    for resource in render(overlay).values():
        validate(resource)

    assert {
        *("ServiceAccount", "ConfigMap", "Service", "Headless", "StatefulSet"),
        *("NetworkPolicy", "PodDisruptionBudget"),
    } == set(render(overlay))


@rendered
@each_overlay
def test_settings_are_legal(overlay: str) -> None:
    """With the keys of the secret the store starts, in a folder of its volume."""
    given = render(overlay)["ConfigMap"]["data"]
    settings = load_settings(given | KEYS, None)
    [mount] = container(overlay)["volumeMounts"]

    assert set() == given.keys() - set(Settings.variables().values())
    assert Path(mount["mountPath"]) in settings.data_dir.parents
    assert ("staging" if overlay == "staging" else "production") == settings.environment
    assert [settings.port, settings.grpc_port] == [
        port["containerPort"] for port in container(overlay)["ports"]
    ]


# -- the canary's routes -----------------------------------------------------------------------


def routes() -> dict[str, Resource]:
    text = (FOLDER / "overlays/canary/routes.yaml").read_text()
    return {resource["kind"]: resource for resource in yaml.safe_load_all(text)}


def strict(schema: Any) -> Any:
    """The schema, refusing fields that it does not name."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return closed | {key: strict(value) for key, value in schema.items()}


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_routes_follow_the_gateway_api(kind: str) -> None:
    """A field that does not exist would be dropped, and the route would take every request."""
    schema = json.loads((GATEWAY_API / f"{kind.lower()}s.json").read_text())
    route = routes()[kind]
    top = strict(schema)
    top["properties"]["metadata"] = {"type": "object"}

    Draft202012Validator(top).validate(route)
    assert "gateway.networking.k8s.io/v1" == route["apiVersion"]
    route["spec"]["rules"][0]["backendRef"] = []
    with pytest.raises(ValidationError):
        Draft202012Validator(top).validate(route)


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
def test_requests_with_the_header_reach_the_canary_alone(kind: str) -> None:
    canary, stable = routes()[kind]["spec"]["rules"]
    [[header]] = [match["headers"] for match in canary["matches"]]
    port = {"HTTPRoute": 8083, "GRPCRoute": 8084}[kind]

    assert [{"name": "store-cache-canary", "port": port}] == canary["backendRefs"]
    assert [{"name": "store-cache", "port": port}] == stable["backendRefs"]
    assert "matches" not in stable
    assert "x-canary" == header["name"].lower()
    for value, is_canary in (("pr-123", True), ("a b", False), ("x" * 65, False), ("", False)):
        assert is_canary == bool(re.fullmatch(header["value"], value))


@rendered
def test_routes_lead_to_services_of_the_overlays() -> None:
    names = {render(overlay)["Service"]["metadata"]["name"] for overlay in ("canary", "production")}

    assert {"store-cache", "store-cache-canary"} == names
    assert "pr-123" == container("canary")["image"].rpartition(":")[2]


# -- without privileges ------------------------------------------------------------------------


@rendered
@each_overlay
def test_pod_has_no_privilege(overlay: str) -> None:
    """It runs as the image's user, cannot become another, and writes to its volume alone."""
    pod_context, context = pod(overlay)["securityContext"], container(overlay)["securityContext"]
    dockerfile = (FOLDER.parents[1] / "Dockerfile").read_text()

    assert (True, "RuntimeDefault") == (
        pod_context["runAsNonRoot"],
        pod_context["seccompProfile"]["type"],
    )
    assert f"USER {pod_context['runAsUser']}:{pod_context['runAsGroup']}\n" in dockerfile
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == context
    assert pod(overlay)["automountServiceAccountToken"] is False
    assert "hostNetwork" not in pod(overlay)


@rendered
@each_overlay
def test_pod_fits_the_program(overlay: str) -> None:
    """One replica; probes that need no key; a stop that is waited for; bounded memory."""
    one = container(overlay)
    probes = [one[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    stop_seconds = WRITES_GRACE_SECONDS + REQUESTS_GRACE_SECONDS + 2

    assert 1 == render(overlay)["StatefulSet"]["spec"]["replicas"]
    assert {probe["httpGet"]["path"] for probe in probes} == OPEN_PATHS
    assert {probe["httpGet"]["port"] for probe in probes} == {one["ports"][0]["name"]}
    assert "/ready" == one["readinessProbe"]["httpGet"]["path"]
    assert pod(overlay)["terminationGracePeriodSeconds"] > stop_seconds
    assert {"memory"} == set(one["resources"]["limits"])
    assert ["data"] == [
        claim["metadata"]["name"]
        for claim in render(overlay)["StatefulSet"]["spec"]["volumeClaimTemplates"]
    ]


# -- fits together -----------------------------------------------------------------------------


@rendered
@each_overlay
def test_selectors_meet_this_overlay_s_pods_alone(overlay: str) -> None:
    """Services, policy and budget select its pod; those of the other overlays do not, so that no
    till of the shop reaches the canary by chance."""
    labels = render(overlay)["StatefulSet"]["spec"]["template"]["metadata"]["labels"]

    for other in OVERLAYS:
        for selector in _selectors(render(other)):
            assert selector, "an empty one selects every pod"
            assert (selector.items() <= labels.items()) == (other == overlay)


def _selectors(resources: dict[str, Resource]) -> list[dict[str, str]]:
    return [
        resources["Service"]["spec"]["selector"],
        resources["Headless"]["spec"]["selector"],
        resources["StatefulSet"]["spec"]["selector"]["matchLabels"],
        resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]


@rendered
@each_overlay
def test_names_lead_somewhere(overlay: str) -> None:
    """Account, settings and headless service are the overlay's; the policy opens its port."""
    resources, one = render(overlay), container(overlay)
    settings = [source["configMapRef"]["name"] for source in one["envFrom"][:1]]
    opened = [each["port"] for each in resources["NetworkPolicy"]["spec"]["ingress"][0]["ports"]]

    assert resources["ServiceAccount"]["metadata"]["name"] == pod(overlay)["serviceAccountName"]
    assert [resources["ConfigMap"]["metadata"]["name"]] == settings
    assert (
        resources["Headless"]["metadata"]["name"] == resources["StatefulSet"]["spec"]["serviceName"]
    )
    assert [each["name"] for each in one["ports"]] == opened
    for port in resources["Service"]["spec"]["ports"]:
        assert {"name": port["targetPort"], "containerPort": port["port"]} in one["ports"]
    assert {"store-cache-keys"} == {source["secretRef"]["name"] for source in one["envFrom"][1:]}


@rendered
def test_overlays_share_nothing_but_the_secret() -> None:
    """No two have a resource, or an id of a store, in common; no id begins another one."""
    names = [
        (resource["metadata"]["namespace"], resource["kind"], resource["metadata"]["name"])
        for overlay in OVERLAYS
        for resource in render(overlay).values()
    ]
    ids = [render(overlay)["ConfigMap"]["data"]["STORE_ID"] for overlay in OVERLAYS]

    assert len(names) == len(set(names))
    assert len(ids) == len(set(ids))
    assert not any(one.startswith(f"{other}-") for one in ids for other in ids)

"""Validates the manifests as far as that goes without a cluster, and shows that it would notice: `make k8s-test`.

Every overlay is built with kustomize and checked strictly against the schemas of Kubernetes. KubeRay's kinds are none
of its own: of a RayJob the pod templates are cut out and checked as PodTemplates, and its own keys against the list
below. Rules that no schema has are checked too. Then mistakes are sown, one at a time, and each must be found.
"""

import copy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

HERE = Path(__file__).parent
VERSION = "1.33"
OVERLAYS = ("base", "ray", "plates")
Manifest = dict[str, Any]
# What ray.io/v1 has, as far as it is used here.
RAY_JOB = {
    *("entrypoint", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "activeDeadlineSeconds"),
    *("backoffLimit", "rayClusterSpec", "runtimeEnvYAML", "jobId", "suspend", "metadata", "submitterPodTemplate"),
}
RAY_CLUSTER = {"rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions"}
HEAD_GROUP = {"rayStartParams", "template", "serviceType", "enableIngress"}
WORKER_GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"}


def built(overlay: str) -> list[Manifest]:
    """The manifests of an overlay."""
    command = ["kubectl", "kustomize", str(HERE / overlay)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    return [found for found in yaml.safe_load_all(text) if found]


def faults(manifests: list[Manifest]) -> Iterator[str]:
    """What is wrong with them."""
    for one in manifests:
        name = f"{one.get('kind')}/{one.get('metadata', {}).get('name')}"
        checked = [one]
        if one.get("kind") == "RayJob":
            yield from (f"{name}: {fault}" for fault in _ray_faults(one))
            checked = [_as_template(template) for template in _ray_templates(one)]
        for what in checked:
            try:
                kubernetes_validate.validate(what, VERSION, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{name}: {'.'.join(map(str, error.path))}: {error.message.splitlines()[0][:200]}"
        for pod in _pods(one):
            yield from (f"{name}: {fault}" for fault in _pod_faults(pod))
        if one.get("kind") == "StatefulSet" and one["spec"].get("replicas") != 1:
            yield f"{name}: {one['spec'].get('replicas')} replicas; a catalog has one writer"


def _ray_faults(job: Manifest) -> Iterator[str]:
    spec = job.get("spec", {})
    cluster = spec.get("rayClusterSpec", {})
    groups = cluster.get("workerGroupSpecs", [])
    yield from _unknown(spec, RAY_JOB, "spec")
    yield from _unknown(cluster, RAY_CLUSTER, "rayClusterSpec")
    yield from _unknown(cluster.get("headGroupSpec", {}), HEAD_GROUP, "headGroupSpec")
    for group in groups:
        yield from _unknown(group, WORKER_GROUP, "workerGroupSpecs")
        containers = group.get("template", {}).get("spec", {}).get("containers", [])
        if not any("nvidia.com/gpu" in one.get("resources", {}).get("limits", {}) for one in containers):
            yield f"workerGroupSpecs {group.get('groupName')}: no GPU is asked for"
    if cluster.get("headGroupSpec", {}).get("rayStartParams", {}).get("num-cpus") != "0":
        yield "headGroupSpec: num-cpus must be '0', or stacks are scored beside the driver"
    lock = (HERE.parent / "lock" / "ray.txt").read_text(encoding="utf-8")
    if f"ray=={cluster.get('rayVersion')} " not in lock:
        yield f"rayVersion {cluster.get('rayVersion')} is not the image's"


def _unknown(given: Manifest, known: set[str], where: str) -> Iterator[str]:
    yield from (f"{where}: unknown key {key}" for key in given if key not in known)


def _ray_templates(job: Manifest) -> list[Manifest]:
    cluster = job.get("spec", {}).get("rayClusterSpec", {})
    groups = [cluster.get("headGroupSpec", {}), *cluster.get("workerGroupSpecs", [])]
    return [group["template"] for group in groups if "template" in group]


def _as_template(template: Manifest) -> Manifest:
    named = {**template, "metadata": {"name": "checked", **template.get("metadata", {})}}
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "checked"}, "template": named}


def _pods(one: Manifest) -> list[Manifest]:
    if one.get("kind") == "RayJob":
        return [template.get("spec", {}) for template in _ray_templates(one)]
    return [one["spec"]["template"]["spec"]] if one.get("kind") in ("StatefulSet", "Job") else []


def _pod_faults(pod: Manifest) -> Iterator[str]:
    """What Pod Security's `restricted` demands, and what this project adds."""
    volumes = {volume["name"] for volume in pod.get("volumes", [])}
    if pod.get("automountServiceAccountToken") is not False:
        yield "it is given a service account's token"
    if pod.get("securityContext", {}).get("runAsNonRoot") is not True:
        yield "it may run as root"
    for one in pod.get("containers", []):
        own = one.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False or own.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"container {one.get('name')} may gain rights"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"container {one.get('name')} may write its root"
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = one.get(kind, {}).get("httpGet")
            names = [header["name"] for header in (asked or {}).get("httpHeaders", [])]
            if asked and (asked.get("scheme") != "HTTPS" or "Host" not in names):
                yield f"{kind} does not ask by HTTPS and by name: the page answers 421"
        missing = {mount["name"] for mount in one.get("volumeMounts", [])} - volumes
        if missing:
            yield f"container {one.get('name')} mounts {', '.join(sorted(missing))}, which is no volume"


GONE = object()
_POD = ("spec", "template", "spec")
_CONTAINER = (*_POD, "containers", 0)
_CLUSTER = ("spec", "rayClusterSpec")
_GPUS = (*_CLUSTER, "workerGroupSpecs", 0, "template", "spec")
# Mistakes: what it is, in which overlay, in which kind, where, and what is written there.
MISTAKES: tuple[tuple[str, str, str, tuple[str | int, ...], Any], ...] = (
    ("a misspelt key", "base", "StatefulSet", ("spec", "replicaz"), 1),
    ("a text for a number", "plates", "Job", ("spec", "backoffLimitPerIndex"), "two"),
    ("a second daemon", "base", "StatefulSet", ("spec", "replicas"), 2),
    ("a probe without a name", "base", "StatefulSet", (*_CONTAINER, "livenessProbe", "httpGet", "httpHeaders"), GONE),
    (
        "a root that can be written",
        "base",
        "StatefulSet",
        (*_CONTAINER, "securityContext", "readOnlyRootFilesystem"),
        GONE,
    ),
    ("a misspelt key of a RayJob", "ray", "RayJob", ("spec", "shutdownAfterJobFinish"), True),
    ("a misspelt key in a Ray worker's pod", "ray", "RayJob", (*_GPUS, "toleration"), []),
    (
        "Ray workers without a GPU",
        "ray",
        "RayJob",
        (*_GPUS, "containers", 0, "resources", "limits", "nvidia.com/gpu"),
        GONE,
    ),
    ("a head that scores", "ray", "RayJob", (*_CLUSTER, "headGroupSpec", "rayStartParams", "num-cpus"), "4"),
    ("another Ray than the image's", "ray", "RayJob", (*_CLUSTER, "rayVersion"), "2.9.0"),
    ("a mount of no volume", "plates", "Job", (*_CONTAINER, "volumeMounts", 0, "name"), "plate"),
    ("a policy with a wrong type", "base", "NetworkPolicy", ("spec", "policyTypes"), "Ingress"),
)


def sown(manifests: list[Manifest], kind: str, path: tuple[str | int, ...], value: Any) -> list[Manifest]:
    """A copy of the manifests with one mistake."""
    copied = copy.deepcopy(manifests)
    place: Any = next(one for one in copied if one["kind"] == kind)
    for step in path[:-1]:
        place = place[step]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return copied


def main() -> int:
    """Check, sow, and say what was found; 1 where the manifests are wrong or a mistake went unnoticed."""
    began_s = time.monotonic()
    overlays = {name: built(name) for name in OVERLAYS}
    wrong = 0
    standing = {name: list(faults(manifests)) for name, manifests in overlays.items()}
    for name, manifests in overlays.items():
        found = standing[name]
        wrong += len(found)
        kinds = ", ".join(one["kind"] for one in manifests)
        print(f"{name}: {len(manifests)} manifests ({kinds}): {'; '.join(found) or 'valid'}")
    for what, overlay, *mistake in MISTAKES:
        manifests = sown(overlays[overlay], *mistake)
        found = [fault for fault in faults(manifests) if fault not in standing[overlay]]
        wrong += not found
        print(f"sown: {what}: {found[0] if found else 'NOT NOTICED'}")
    print(f"{len(MISTAKES)} mistakes sown, Kubernetes {VERSION}, {time.monotonic() - began_s:.1f} s, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

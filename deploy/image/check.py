"""Looks at the image that `make image` built, hardened as it is meant to run: `make image-test`.

Size, user, a recorded plate replayed with every figure as outside, the service behind its certificate, how long a stop
takes, and the bill of materials (sbom.json). Uses podman, or docker where its daemon answers. --twice builds once more
without a cache and compares what lies in the image, file by file.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).parent
NAME = os.environ.get("NAME", "localhost/spheroidd:latest")
SPHEROIDD = str(HERE.parent.parent / ".venv" / "bin" / "spheroidd")
MAX_GB, MAX_GZIP_MB, MAX_STOP_S, MIN_PARTS = 1.6, 500, 10.0, 60
LOOKED_AT = (0, 1)  # of so few slices some well's images are doubted; its row is there
UID, HTTPS, GRPC, HOST = 10001, 8791, 50791, "spheroidd"
FIGURES = "well, live_um3, dead_um3, n_live, n_dead, v_count, v_control, v_score, normalisation, precision, status"
HARDENED = ("--read-only", "--tmpfs", "/tmp:exec", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")


def engine() -> list[str]:
    """docker, or podman with the settings for a system that is itself a container."""
    if (
        os.environ.get("BUILDER") != "buildah"
        and subprocess.run(["docker", "info"], capture_output=True).returncode == 0
    ):
        return ["docker"]
    os.environ["CONTAINERS_CONF"] = str(HERE / "containers.conf")
    return ["podman"]


ENGINE = engine()
RUN = [*ENGINE, "run", "--rm", *(["--no-healthcheck"] if ENGINE == ["podman"] else []), *HARDENED]


def call(*words: object, codes: tuple[int, ...] = (0,), timeout: float = 400) -> str:
    """A command; what it said."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode not in codes:
        sys.exit(
            f"{' '.join(map(str, words))} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done.stdout


def must(true: bool, what: str) -> None:
    """Say what was seen, and end where it is not so."""
    print(f"{'ok' if true else 'NOT SO'}: {what}", flush=True)
    if not true:
        sys.exit(1)


def look_at_it() -> None:
    """What the image is."""
    told = json.loads(call(*ENGINE, "image", "inspect", NAME))[0]
    size_gb = told["Size"] / 1e9
    must(size_gb < MAX_GB, f"{size_gb:.2f} GB, below {MAX_GB}")
    settings = told.get("Config") or {}
    must(settings.get("User") == f"{UID}:{UID}", f"runs as {settings.get('User')}")
    health = settings.get("Healthcheck") or told.get("HealthCheck") or told.get("Healthcheck")
    must(bool(health), "has a health check")
    print(call(*RUN, NAME, "--version").strip())


def weigh() -> None:
    """The image as it would be sent."""
    saving = subprocess.Popen([*ENGINE, "save", NAME], stdout=subprocess.PIPE)
    packed = subprocess.run(["gzip", "-6", "-c"], stdin=saving.stdout, stdout=subprocess.PIPE, check=True).stdout
    must(saving.wait() == 0 and len(packed) / 1e6 < MAX_GZIP_MB, f"{len(packed) / 1e6:.0f} MB as gzip -6")


def figures(data: Path) -> list[tuple[object, ...]]:
    """Every figure of every row."""
    with closing(sqlite3.connect(data / "catalog.sqlite")) as connection:
        return connection.execute(f"SELECT {FIGURES} FROM results ORDER BY well").fetchall()


def replay(folder: Path) -> None:
    """A recorded plate, inside and outside."""
    recording, inside, outside = folder / "recording", folder / "inside", folder / "outside"
    call(SPHEROIDD, "emulate", recording, "--preset", "unit", "--name", "P1")
    wells = len(list(recording.glob("*.tif*"))) or len(list(recording.rglob("*.tif*")))
    inside.mkdir()
    for path in (inside, folder):
        path.chmod(0o755)
    os.chown(inside, UID, UID)
    call("chmod", "-R", "a+rX", recording)
    options = ("--name", "P1", "--threads", "1", "--plain")
    mounts = ("-v", f"{recording}:/plates:ro", "-v", f"{inside}:/data")
    began_s = time.monotonic()
    call(*RUN, *mounts, NAME, "replay", "/plates/map.csv", "--data", "/data", *options, codes=LOOKED_AT)
    seconds = time.monotonic() - began_s
    call(SPHEROIDD, "replay", recording / "map.csv", "--data", outside, *options, codes=LOOKED_AT)
    rows = figures(inside)
    must(len(rows) > 0, f"{wells} files, {len(rows)} rows in {seconds:.0f} s, hardened, its input read-only")
    must(rows == figures(outside), "every figure equals the run outside")


def serve(folder: Path) -> None:
    """First start, service, health by name, stop."""
    config, data = folder / "config", folder / "served"
    for path in (config, data):
        path.mkdir()
        os.chown(path, UID, UID)
    mounts = ("-v", f"{config}:/config", "-v", f"{data}:/data")
    said = call(*RUN, *mounts, "--entrypoint", "first-start", NAME, HOST)
    must(
        (config / "key.pem").exists() and len(said.split()[-1]) > 20, "the first start makes a certificate and a token"
    )
    settings = (config / "spheroidd.toml").read_text().replace(":8040", f":{HTTPS}")
    (config / "spheroidd.toml").write_text(settings)
    ports = ("-p", f"{HTTPS}:{HTTPS}", "-p", f"{GRPC}:{GRPC}") if ENGINE == ["docker"] else ()
    detached = [word for word in RUN if word != "--rm"]
    name = f"spheroidd-test-{os.getpid()}"
    call(*detached, "--detach", "--name", name, *ports, *mounts, NAME)
    try:
        codes = answers(config / "certificate.pem")
        must(codes == (200, 421), f"/healthz answers {codes[0]} to its name and {codes[1]} to another")
        call(*ENGINE, "exec", name, "sh", "-c", "spheroidd status /data > /dev/null; test $? -le 1")
        print("ok: the health check's command is content")
        began_s = time.monotonic()
        call(*ENGINE, "stop", "--time", "60", name)
        seconds = time.monotonic() - began_s
        code = int(call(*ENGINE, "inspect", "--format", "{{.State.ExitCode}}", name))
        must((code, seconds < MAX_STOP_S) == (0, True), f"stops in {seconds:.1f} s with exit code {code}")
    finally:
        call(*ENGINE, "rm", "--force", name)


def answers(certificate: Path) -> tuple[int, int]:
    """What /healthz says to the service's name, and to an address."""
    trust = ssl.create_default_context(cafile=str(certificate))
    trust.check_hostname = False  # we come by address, as a probe does
    codes = []
    for host in (HOST, "10.0.0.7"):
        asked = urllib.request.Request(f"https://127.0.0.1:{HTTPS}/healthz", headers={"Host": host})
        end_s = time.monotonic() + 90
        while True:
            try:
                codes.append(urllib.request.urlopen(asked, context=trust, timeout=5).status)
                break
            except urllib.error.HTTPError as error:
                codes.append(error.code)
                break
            except OSError:
                if time.monotonic() > end_s:
                    sys.exit("the service does not answer within 90 s")
                time.sleep(0.5)
    return codes[0], codes[1]


def bill() -> None:
    """sbom.json: every package of the image, with its licence."""
    tool = HERE.parent.parent / ".venv-sbom"
    if not (tool / "bin" / "cyclonedx-py").exists():
        call(sys.executable, "-m", "venv", "--clear", tool)
        call(tool / "bin" / "python", "-m", "pip", "install", "-q", "cyclonedx-bom==7.5.0")
    with unpacked() as root:
        python = root / "opt/spheroidd/bin/python3"
        out = HERE.parent.parent / "sbom.json"
        options = ("--output-reproducible", "--of", "JSON", "-o", out)
        call(tool / "bin" / "cyclonedx-py", "environment", *options, python)
    parts = json.loads(out.read_text())["components"]
    licensed = sum(bool(part.get("licenses")) for part in parts)
    must(len(parts) >= MIN_PARTS, f"{out.name}: {len(parts)} packages, {licensed} with their licence")


class unpacked:  # noqa: N801
    """The image's files, for a while."""

    def __enter__(self) -> Path:
        self.name = call("buildah", "from", NAME).strip()
        return Path(call("buildah", "mount", self.name).strip())

    def __exit__(self, *exc_info: object) -> None:
        call("buildah", "rm", self.name)


def content() -> dict[str, str]:
    """Every file that is not the base's, by what is in it."""
    with unpacked() as root:
        files = [
            path for part in ("opt/spheroidd", "usr/local/bin", "etc/passwd", "etc/group") for path in [root / part]
        ]
        found = [one for path in files for one in ([path] if path.is_file() else path.rglob("*"))]
        return {
            str(one.relative_to(root)): hashlib.sha256(one.read_bytes()).hexdigest()
            for one in found
            if one.is_file() and not one.is_symlink()
        }


def build_again() -> None:
    """The same from the same."""
    before = content()
    environment = {**os.environ, "BUILDAH_LAYERS": "false", "NO_CACHE": "1"}
    subprocess.run([str(HERE / "build.sh")], env=environment, check=True, timeout=900, stdout=subprocess.DEVNULL)
    after = content()
    other = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    must(not other, f"built again without a cache: {len(after)} files, other ones: {other[:5] or 'none'}")


def main() -> None:
    """All of it."""
    began_s = time.monotonic()
    look_at_it()
    folder = Path(tempfile.mkdtemp(prefix="spheroidd-image-"))
    try:
        replay(folder)
        serve(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if shutil.which("buildah"):
        bill()
    weigh()
    if "--twice" in sys.argv:
        build_again()
    print(f"{time.monotonic() - began_s:.0f} s")


main()

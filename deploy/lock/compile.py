"""Makes the locks of the image from pyproject.toml: `uv run --no-project deploy/lock/compile.py`, or with uv on PATH.

base.txt is everything but torch, without extras; cuda.txt is torch from PyPI with its CUDA libraries, cpu.txt torch
without them, from https://download.pytorch.org/whl/cpu; ray.txt is what the target `ray` adds. All are pinned and
hashed, for Python 3.11 and newer on every system, so an image's content follows from the commit alone.
"""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
_CUDA = re.compile(r"(torch|triton|nvidia-|cuda-)")
# The wheels of https://download.pytorch.org/whl/cpu are not on PyPI, so their hashes are written here, by Python.
TORCH_CPU = {"cp311": "sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"}


def compiled(*extras: str) -> dict[str, str]:
    """{name and marker: its lines of the lock}, for spheroidd with these extras."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11", "--quiet"]
    command += ["--generate-hashes", "--no-annotate", "--no-header", "--constraints", "constraints.txt"]
    command += [word for extra in extras for word in ("--extra", extra)]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    parts = re.split(r"\n(?=\S)", text.strip())
    return {f"{part.split('==')[0]} {part.splitlines()[0].partition(';')[2]}".rstrip(" \\"): part for part in parts}


def write(name: str, parts: list[str]) -> None:
    """One lock."""
    (HERE / name).write_text("\n".join(parts) + "\n", encoding="utf-8")


def main() -> int:
    """Write the four locks."""
    plain, with_ray = compiled(), compiled("ray")
    cuda = {name: part for name, part in plain.items() if _CUDA.match(name)}
    write("base.txt", [part for name, part in plain.items() if name not in cuda])
    write("cuda.txt", list(cuda.values()))
    write("ray.txt", [part for name, part in with_ray.items() if name not in plain])
    version = cuda["torch"].split("==")[1].split()[0]
    hashes = " \\\n    ".join(f"--hash={digest}" for digest in TORCH_CPU.values())
    write("cpu.txt", [f"torch=={version}+cpu \\\n    {hashes}"])
    changed = [name for name in plain.keys() & with_ray.keys() if plain[name] != with_ray[name]]
    if changed:
        print(f"ray wants other versions of {', '.join(changed)}: pin them in constraints.txt", file=sys.stderr)
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main())

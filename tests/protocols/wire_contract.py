"""Generates the code of the wire contract: `python -m tests.protocols.wire_contract` writes it into `protocols/`."""

import sys
from pathlib import Path

from google.api import annotations_pb2
from grpc_tools import protoc

from tests.places import ROOT

PROTO = "spheroidd/protocols/spheroidd.proto"
GENERATED = tuple(f"spheroidd_pb2{end}" for end in (".py", ".pyi", "_grpc.py", "_grpc.pyi"))


def generate(out: Path) -> None:
    """Write the generated files into the folder `out`/spheroidd/protocols."""
    google = Path(annotations_pb2.__file__).parents[2]  # google-api's .proto files lie beside their code
    command = ["protoc", f"-Ispheroidd/protocols={ROOT / 'protocols'}", f"-I{google}"]
    command += [f"-I{Path(protoc.__file__).parent / '_proto'}"]
    command += [f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}" for name in _PLUGINS]
    command += [f"--{kind}_out={out}" for kind in ("python", "grpc_python", *_PLUGINS)]
    if protoc.main([*command, PROTO]) != 0:
        raise RuntimeError("protoc refused the contract; see its words above")


_PLUGINS = ("mypy", "mypy_grpc")

if __name__ == "__main__":
    generate(ROOT / "tests" / "_typeroot")  # its links lead into the source folders

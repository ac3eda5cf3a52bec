"""Servers that are measured beside Fairway: each in its own environment, all with the same ONNX file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
PORT = 9301
TRITON = "nvidia-pytriton==0.7.0"  # carries tritonserver 2.51 and its Python backend
MLSERVER = "mlserver==1.7.1"
BENTOML = "bentoml==1.4.39"


@dataclass(frozen=True)
class Server:
    """How to start a server and where it predicts. `start` gives (command, environment, folder)."""

    name: str
    path: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = HERE
    form: str = "json"
    """The form of its JSON bodies, as in `subject.Bodies`."""
    binary: bool = False
    """Whether it takes binary tensors."""
    headers: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{PORT}{self.path}"


def fairway(home: Path, key: str) -> Server:
    """With everything on: key check, contract, recording, metrics."""
    program = str(Path(sys.executable).with_name("fairway"))
    command = (program, "serve", "lr", "--home", str(home), "--port", str(PORT), "--grpc-port", str(PORT + 1))
    return Server(
        "fairway", "/v2/models/lr/infer", command, binary=True, headers=(f"Authorization: Bearer {key}",)
    )


def bare_asgi(onnx: Path) -> Server:
    command = (sys.executable, "-m", "uvicorn", "bare_asgi:app", "--port", str(PORT), "--no-access-log")
    quiet = ("--log-level", "warning")
    return Server("bare ASGI", "/v2/models/lr/infer", (*command, *quiet), {"BENCH_MODEL": str(onnx)})


def triton(onnx: Path, environments: Path) -> Server:
    site = installed(environments / "triton", TRITON, "onnxruntime", "numpy")
    server = site / "pytriton" / "tritonserver"
    backends = environments / "triton-backends"
    if not backends.exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copytree(server / "backends" / "python", backends / "python")
        shutil.copy(stub, backends / "python")
    command = (
        str(server / "bin" / "tritonserver"),
        f"--model-repository={HERE / 'triton'}",
        f"--backend-directory={backends}",
        f"--http-port={PORT}",
        f"--grpc-port={PORT + 1}",
        f"--metrics-port={PORT + 2}",
    )
    environment = {
        "BENCH_MODEL": str(onnx),
        "BENCH_SITE": str(site),
        "LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs"),
    }
    return Server("Triton", "/v2/models/lr/infer", command, environment, binary=True)


def mlserver(onnx: Path, environments: Path) -> Server:
    site = installed(environments / "mlserver", MLSERVER, "onnxruntime", "numpy")
    binary = str(site.parents[2] / "bin" / "mlserver")
    environment = {
        "BENCH_MODEL": str(onnx),
        "MLSERVER_HTTP_PORT": str(PORT),
        "MLSERVER_GRPC_PORT": str(PORT + 1),
        "MLSERVER_METRICS_PORT": str(PORT + 2),
        "MLSERVER_PARALLEL_WORKERS": "0",
        "MLSERVER_DEBUG": "false",
    }
    return Server("MLServer", "/v2/models/lr/infer", (binary, "start", "."), environment, HERE / "mlserver")


def bentoml(onnx: Path, environments: Path) -> Server:
    site = installed(environments / "bentoml", BENTOML, "onnxruntime", "numpy")
    binary = str(site.parents[2] / "bin" / "bentoml")
    command = (binary, "serve", "service:Service", "--port", str(PORT))
    environment = {
        "BENCH_MODEL": str(onnx),
        "BENTOML_HOME": str(environments / "bentoml-home"),
        "BENTOML_DO_NOT_TRACK": "True",
        "PATH": f"{Path(binary).parent}:{os.environ['PATH']}",
    }
    return Server("BentoML", "/infer", command, environment, HERE / "bentoml", form="list")


PEERS: dict[str, Callable[[Path, Path], Server]] = {
    "bare": lambda onnx, environments: bare_asgi(onnx),
    "triton": triton,
    "mlserver": mlserver,
    "bentoml": bentoml,
}


def installed(folder: Path, *packages: str) -> Path:
    """Site-packages of an environment with these packages, made at first use."""
    ready = folder / ".ready"
    if not ready.exists():
        print(f"installing {packages[0]} ...", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        python = str(folder / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True, env={**os.environ})
        ready.touch()
    return next((folder / "lib").glob("python*")) / "site-packages"

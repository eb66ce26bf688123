"""The client generators of docs/clients.md: each makes, builds and runs a client of the document of a service."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
PROGRAMS = HERE / "programs"
OPENAPI_GENERATOR = "7.25.0"
OAPI_CODEGEN, OAPI_RUNTIME = "v2.8.2", "v1.9.0"
# What a program that is written with the client of a generator runs.
MODULE = "example.com/router/insights"
TSCONFIG = """{"compilerOptions": {
  "strict": true, "target": "es2022", "lib": ["es2022", "dom", "dom.iterable"], "types": ["node"], "skipLibCheck": true,
  "module": "commonjs", "moduleResolution": "node10", "esModuleInterop": true, "outDir": "out", "rootDir": "src"
}, "include": ["src"]}"""


class ToolMissingError(Exception):
    """What must be on the PATH, or a tool that failed, with the end of what it printed."""


def run(*command: object, cwd: Path, **variables: str) -> str:
    """What a command prints. Raises ToolMissingError with the end of its errors."""
    if shutil.which(str(command[0])) is None:
        raise ToolMissingError(f"{command[0]} must be on the PATH")
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ToolMissingError(f"{' '.join(map(str, command[:4]))}: {(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


class Tools:
    """The generators of PyPI, npm and Maven Central, fetched the first time into a cache."""

    def __init__(self) -> None:
        pinned = [*((HERE / name).read_bytes() for name in ("requirements.lock", "package-lock.json"))]
        digest = hashlib.sha256(b"".join([*pinned, OPENAPI_GENERATOR.encode()])).hexdigest()[:12]
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "router-insights"
        self.folder = cache / f"client-generators-{digest}"
        self.python = self.folder / "venv/bin/python"
        self.jar = self.folder / f"openapi-generator-cli-{OPENAPI_GENERATOR}.jar"
        # Node.js of PyPI before the machine's: hey-api needs 22.18 or newer.
        self.path = f"{self.folder / 'venv/bin'}{os.pathsep}{os.environ['PATH']}"
        if not (self.folder / "complete").exists():
            self._fetch()

    def _fetch(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        run("python3", "-m", "venv", "venv", cwd=self.folder)
        run(self.python, "-m", "pip", "install", "-q", "--require-hashes", "-r", HERE / "requirements.lock",
            cwd=self.folder)  # fmt: skip
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, self.folder)
        run(self.folder / "venv/bin/npm", "ci", "--no-audit", "--no-fund", cwd=self.folder, PATH=self.path)
        artifact = f"org.openapitools:openapi-generator-cli:{OPENAPI_GENERATOR}"
        run("mvn", "--batch-mode", "-q", "dependency:copy", f"-Dartifact={artifact}", "-DoutputDirectory=.",
            cwd=self.folder)  # fmt: skip
        (self.folder / "complete").touch()

    def node(self, *command: object, cwd: Path, **variables: str) -> str:
        """Run a program of node_modules."""
        program, *arguments = command
        tool = self.folder / "node_modules/.bin" / str(program)
        return run(tool, *arguments, cwd=cwd, **{"PATH": self.path, **variables})

    def openapi_generator(self, document: Path, generator: str, output: Path, **properties: str) -> None:
        options = ",".join(f"{name}={value}" for name, value in properties.items())
        run("java", "-jar", self.jar, "generate", "-i", document, "-g", generator, "-o", output,
            f"--additional-properties={options}", "--git-host=example.com", "--git-user-id=router",
            "--git-repo-id=insights", cwd=document.parent)  # fmt: skip

    def run_typescript(self, folder: Path, program: str, **variables: str) -> str:
        """Compile the program and the client in `src/client`, strictly, and run it."""
        (folder / "node_modules").symlink_to(self.folder / "node_modules")
        (folder / "tsconfig.json").write_text(TSCONFIG)
        shutil.copy(PROGRAMS / program, folder / "src/program.ts")
        self.node("tsc", "-p", ".", cwd=folder)
        return run(self.folder / "venv/bin/node", "out/program.js", cwd=folder, **variables)


def run_go(folder: Path, program: str, **variables: str) -> str:
    """Build the program and the client in `folder`, a Go module, and run it."""
    (folder / "cmd").mkdir()
    shutil.copy(PROGRAMS / program, folder / "cmd/main.go")
    run("go", "mod", "tidy", cwd=folder, GOFLAGS="-mod=mod")
    run("go", "vet", "./...", cwd=folder)
    return run("go", "run", "./cmd", cwd=folder, **variables)


def openapi_python_client(tools: Tools, document: Path, folder: Path, **variables: str) -> str:
    run(tools.folder / "venv/bin/openapi-python-client", "generate", "--path", document, "--meta", "none",
        "--output-path", folder / "openapi_python_insights", cwd=folder, PATH=tools.path)  # fmt: skip
    return run(tools.python, PROGRAMS / "openapi_python_client.py", cwd=folder, PYTHONPATH=str(folder), **variables)


def openapi_generator_python(tools: Tools, document: Path, folder: Path, **variables: str) -> str:
    tools.openapi_generator(document, "python", folder / "client", packageName="openapi_generator_insights")
    path = str(folder / "client")
    return run(tools.python, PROGRAMS / "openapi_generator.py", cwd=folder, PYTHONPATH=path, **variables)


def openapi_generator_go(tools: Tools, document: Path, folder: Path, **variables: str) -> str:
    tools.openapi_generator(document, "go", folder / "client", packageName="insights", enumClassPrefix="true")
    shutil.rmtree(folder / "client/test")
    return run_go(folder / "client", "openapi_generator.go", **variables)


def openapi_generator_typescript(tools: Tools, document: Path, folder: Path, **variables: str) -> str:
    tools.openapi_generator(document, "typescript-fetch", folder / "src/client", enumPropertyNaming="PascalCase")
    return tools.run_typescript(folder, "openapi_generator.ts", **variables)


def oapi_codegen(tools: Tools, document: Path, folder: Path, **variables: str) -> str:
    del tools
    module = f"module {MODULE}\n\ngo 1.24\n\nrequire github.com/oapi-codegen/runtime {OAPI_RUNTIME}\n"
    (folder / "go.mod").write_text(module)
    tool = f"github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@{OAPI_CODEGEN}"
    made = run("go", "run", tool, "-generate", "types,client", "-package", "insights", document, cwd=folder)
    (folder / "client.go").write_text(made)
    return run_go(folder, "oapi_codegen.go", **variables)


def openapi_typescript(tools: Tools, document: Path, folder: Path, **variables: str) -> str:
    (folder / "src/client").mkdir(parents=True)
    tools.node("openapi-typescript", document, "-o", "src/client/schema.d.ts", cwd=folder)
    return tools.run_typescript(folder, "openapi_fetch.ts", **variables)


def hey_api(tools: Tools, document: Path, folder: Path, **variables: str) -> str:
    tools.node("openapi-ts", "-i", document, "-o", "src/client", cwd=folder)
    return tools.run_typescript(folder, "hey_api.ts", **variables)


class Generator(NamedTuple):
    """How a client is made and asked; `fraction` is how many digits of a second its times keep."""

    answers: Callable[..., str]
    fraction: int = 6

    @property
    def name(self) -> str:
        return str(self.answers.__name__)


GENERATORS = (
    Generator(openapi_python_client),
    Generator(openapi_generator_python),
    Generator(openapi_generator_go),
    # Its times are of JavaScript's Date.
    Generator(openapi_generator_typescript, fraction=3),
    Generator(oapi_codegen),
    Generator(openapi_typescript),
    Generator(hey_api),
)

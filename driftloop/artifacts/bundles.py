"""Bundles: a model as a signed BentoML archive; built and published by trainer, checked before anything of it is imported.

BentoML is imported by the functions that need it, because importing it takes seconds.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from driftloop.artifacts.errors import ArtifactNotFound, ArtifactTooLarge, BundleRefused
from driftloop.artifacts.signing import SigningKey, VerifyKey
from driftloop.artifacts.store import ArtifactStore
from driftloop.scoring.model import Floats, ScoringModel, Texts

BUNDLE_FILE, SIGNATURE_FILE = "model.bento", "signature.json"
BUNDLE_BYTES_MAX = 64 << 20  # a tabular model has well under 1 MiB; more than this is not one of ours
_SIGNATURE_BYTES_MAX = 16_384
_SOURCES = ("model.py", "service.py")
_IN_BUNDLE = ["bentoml==1.4.39", "numpy>=2", "onnxruntime>=1.20"]
# Importing a bento changes sys.modules, sys.path and the working folder of the whole process: one at a time.
_importing = threading.Lock()


@dataclass(frozen=True)
class PublishedBundle:
    """Where a bundle lies in the artifact store, and the SHA-256 of its file."""

    url: str
    digest: str
    size_bytes: int


class LoadedModel:
    """A model that came out of a bundle, ready to answer in this process; `classes` are those of a multiclass model.

    `prior` is what it would say without looking: the mean label of its training rows, or the frequency of each class.
    """

    def __init__(self, model_id: str, scoring: ScoringModel) -> None:
        self.model_id = model_id
        self.scoring = scoring
        self.inputs_digest = scoring.inputs_digest
        self.prior: tuple[float, ...] = tuple(scoring.spec.get("prior", ()))
        self.task: str = scoring.spec.get("task", "binary")
        self.classes: tuple[str, ...] = tuple(scoring.spec.get("classes", ()))

    def predict(self, numbers: Any, texts: Texts) -> Floats:
        """As `ScoringModel.predict`."""
        return self.scoring.predict(numbers, texts)


def bundle_path(use_case: str, model_id: str) -> str:
    """Where a model's bundle lies in the artifact store."""
    return f"{use_case}/bundles/{model_id}/{BUNDLE_FILE}"


def build_bundle(
    use_case: str, model_id: str, onnx: bytes, weights: bytes, spec: Mapping[str, Any], into: Path, bento_home: Path
) -> Path:
    """Builds `into`/model.bento from a model's parts; the archive needs neither driftloop nor torch. ValueError: a bad id.

    `bento_home`: BentoML's own folder, on local disk and outside `into`.
    """
    module = _module_name(model_id)
    with tempfile.TemporaryDirectory(prefix="driftloop-bento-") as folder:
        context = Path(folder, "context")
        package = context / module
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(f'"""Model {model_id} of {use_case}."""\n')
        for source in _SOURCES:
            (package / source).write_text(files("driftloop.scoring").joinpath(source).read_text())
        (package / "model.onnx").write_bytes(onnx)
        (package / "model.safetensors").write_bytes(weights)
        (package / "spec.json").write_text(json.dumps({**spec, "model_id": model_id}, indent=1))
        with _bentoml(bento_home, module) as (bentoml, bento_store), _no_installing(Path(folder)):
            bento = bentoml.build(
                f"{module}.service:Model",
                name=_bento_name(use_case),
                version=model_id.lower(),
                build_ctx=str(context),
                include=[f"{module}/"],
                python={"packages": _IN_BUNDLE, "lock_packages": False},
                _bento_store=bento_store,
            )
            into.mkdir(parents=True, exist_ok=True)
            target = into / BUNDLE_FILE
            target.unlink(missing_ok=True)
            bento.export(str(target))
    return target


def publish_bundle(
    store: ArtifactStore, use_case: str, model_id: str, bento_file: Path, signing_key: SigningKey
) -> PublishedBundle:
    """Puts a bundle and its signature into the store; a model that is published again replaces its own files."""
    digest, size_bytes = _digest(bento_file)
    url = bundle_path(use_case, model_id)
    statement = {"version": 1, "use_case": use_case, "model_id": model_id, "digest": digest, "size_bytes": size_bytes}
    signature = base64.b64encode(signing_key.sign(_canonical(statement))).decode()
    store.put_file(url, bento_file)
    store.put(_signature_path(url), json.dumps({**statement, "signature": signature}, indent=1).encode())
    return PublishedBundle(url, digest, size_bytes)


def fetch_bundle(
    store: ArtifactStore,
    url: str,
    digest: str,
    verify_key: VerifyKey,
    into: Path,
    max_bytes: int = BUNDLE_BYTES_MAX,
) -> Path:
    """Copies a bundle to `into` after its size, digest and signature were found right; nothing of it is imported.

    Raises BundleRefused with reason missing, size, digest, signature or name.
    """
    try:
        if store.size_bytes(url) > max_bytes:
            raise BundleRefused("size", f"{url} has more than {max_bytes} bytes")
        data = store.get(url, max_bytes)
        signed = store.get(_signature_path(url), _SIGNATURE_BYTES_MAX)
    except ArtifactNotFound as error:
        raise BundleRefused("missing", str(error)) from error
    except ArtifactTooLarge as error:
        raise BundleRefused("size", str(error)) from error
    except ValueError as error:
        raise BundleRefused("name", str(error)) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleRefused("digest", f"{url} is not the file that was released ({digest})")
    statement = _verified(signed, verify_key)
    if (statement.get("digest"), statement.get("size_bytes")) != (digest, len(data)):
        raise BundleRefused("signature", f"the signature beside {url} is of another file")
    if bundle_path(str(statement.get("use_case")), str(statement.get("model_id"))) != url:
        raise BundleRefused("name", f"{url} was signed as {statement.get('use_case')}/{statement.get('model_id')}")
    into.mkdir(parents=True, exist_ok=True)
    target = into / BUNDLE_FILE
    target.write_bytes(data)
    return target


def load_bundle(bento_file: Path, bento_home: Path, model_id: str) -> LoadedModel:
    """Imports a bundle that `fetch_bundle` accepted and loads its model; BundleRefused("broken", …) if it does not load.

    Runs code of the bundle. While it runs the working folder of the process may change for a moment: keep paths absolute.
    """
    module = _module_name(model_id)
    try:
        with _bentoml(bento_home, module) as (bentoml, bento_store):
            bento = bentoml.import_bento(str(bento_file), _bento_store=bento_store)
            instance = bentoml.load(str(bento.path)).inner()
    except Exception as error:  # whatever the bundle's own code raises, the model in use goes on answering
        raise BundleRefused("broken", f"{bento_file} does not load: {type(error).__name__}: {error}") from error
    if instance.model_id != model_id:
        raise BundleRefused("name", f"{bento_file} holds model {instance.model_id}, not {model_id}")
    return LoadedModel(model_id, instance.scoring)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _signature_path(url: str) -> str:
    folder, _, _ = url.rpartition("/")
    return f"{folder}/{SIGNATURE_FILE}" if folder else SIGNATURE_FILE


def _canonical(statement: Mapping[str, Any]) -> bytes:
    return json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()


def _verified(signed: bytes, verify_key: VerifyKey) -> dict[str, Any]:
    try:
        statement = json.loads(signed)
        signature = base64.b64decode(statement.pop("signature"), validate=True)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BundleRefused("signature", f"{SIGNATURE_FILE} cannot be read: {error}") from error
    if not verify_key.verifies(_canonical(statement), signature):
        raise BundleRefused("signature", "the signature is not trainer's")
    return dict(statement)


def _bento_name(use_case: str) -> str:
    return f"driftloop-{use_case}".lower()


def _module_name(model_id: str) -> str:
    """Each version its own module name: two versions of one name in a process would both be the first (sys.modules)."""
    if not re.fullmatch(r"[A-Za-z0-9_]{1,64}", model_id):
        raise ValueError(f"model id {model_id!r}: letters, digits and '_' only, at most 64")
    return f"driftloop_model_{model_id}"


@contextmanager
def _bentoml(home: Path, module: str) -> Iterator[tuple[Any, Any]]:
    """BentoML and an empty bento store in `home`, while nobody else imports a bento; `module` is imported afresh."""
    with _importing:
        # Read once, when BentoML first needs it: later homes of the same process hold bentos only.
        os.environ.setdefault("BENTOML_HOME", str(home.resolve()))
        os.environ["BENTOML_DO_NOT_TRACK"] = "true"
        import bentoml
        from bentoml._internal.bento import BentoStore
        from bentoml._internal.configuration.containers import BentoMLContainer

        home = home.resolve()
        # A bento of the same tag may lie there from before a crash, and may not be imported twice.
        shutil.rmtree(home / "bentos", ignore_errors=True)
        for name in ("bentos", "tmp", "models"):
            (home / name).mkdir(parents=True, exist_ok=True)
        BentoMLContainer.tmp_bento_store_dir.set(str(home / "tmp"))
        for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
            del sys.modules[name]
        yield bentoml, BentoStore(str(home / "bentos"))


@contextmanager
def _no_installing(folder: Path) -> Iterator[None]:
    """BentoML asks for uv, and installs it with pip where there is none, even where nothing is to be locked.

    A `uv` at the end of PATH that only fails is found and never run; a real one, earlier on PATH, still wins. It is a link to
    a program of the system's: where temporary files may not be executed, as in containers, a script would not count as one.
    """
    stand_in = folder / "bin" / "uv"
    stand_in.parent.mkdir()
    stand_in.symlink_to(shutil.which("false") or sys.executable)
    before = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = f"{before}{os.pathsep}{stand_in.parent}"
    try:
        yield
    finally:
        os.environ["PATH"] = before

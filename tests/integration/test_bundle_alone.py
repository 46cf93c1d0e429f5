"""A published bundle without driftloop: BentoML's own server answers with it, and its ONNX file needs nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from deploy.local import free_base_port
from driftloop.artifacts.bundles import build_bundle
from services.trainer.training import Trained
from tests.trainer_twin import rows, trained_on

pytestmark = pytest.mark.timeout(180)
NUMBERS, TEXTS = [[1.0, 2.0, None], [-1.0, 0.5, 0.1]], [["blue"], ["unheard of"]]
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def trained() -> Trained:
    return trained_on(rows(400))


@pytest.fixture(scope="module")
def bundle(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    return build_bundle(
        "trips", "m1", trained.onnx, trained.weights, trained.spec, folder / "built", folder / "bentoml"
    )


def expected(trained: Trained) -> list[float]:
    numbers = [[np.nan if value is None else value for value in row] for row in NUMBERS]
    return list(trained.model.predict(numbers, TEXTS))


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[str]:
    """`bentoml import` and `bentoml serve`, in a folder where nothing of this repository can be imported."""
    port = free_base_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "true"}
    bentoml = str(Path(sys.executable).with_name("bentoml"))
    subprocess.run([bentoml, "import", str(bundle)], cwd=tmp_path, env=environment, check=True, timeout=PATIENCE_S)
    argv = [bentoml, "serve", "driftloop-trips:m1", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until_s = time.monotonic() + PATIENCE_S
        while not _answers(f"{url}/readyz"):
            assert time.monotonic() < until_s, (tmp_path / "log").read_text()
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True


def test_bentoml_serves_a_bundle_over_http_with_the_answers_of_the_model(server: str, trained: Trained) -> None:
    body = json.dumps({"numbers": NUMBERS, "texts": TEXTS}).encode()
    request = urllib.request.Request(f"{server}/predict", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        answers = json.load(response)
    assert answers == pytest.approx(expected(trained), abs=1e-12)


def test_the_onnx_file_of_a_bundle_stands_alone(bundle: Path, trained: Trained) -> None:
    with tarfile.open(bundle) as archive:
        graph = next(member for member in archive.getmembers() if member.name.endswith("model.onnx"))
        data = archive.extractfile(graph)
        spec_file = archive.extractfile(next(m for m in archive.getmembers() if m.name.endswith("spec.json")))
        assert data is not None
        assert spec_file is not None
        session, spec = onnxruntime.InferenceSession(data.read()), json.load(spec_file)
    codes = [
        [words.index(text) + 1 if text in words else 0 for text, words in zip(row, spec["vocabularies"], strict=True)]
        for row in TEXTS
    ]
    numbers = np.array([[np.nan if value is None else value for value in row] for row in NUMBERS])
    (answers,) = session.run(None, {"numbers": numbers, "codes": np.array(codes, dtype=np.int64)})
    assert answers.tolist() == pytest.approx(expected(trained), abs=1e-12)

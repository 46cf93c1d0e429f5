#!/bin/sh
# Installs what one image needs into /venv, and lists it in /sbom; runs in the build only. Usage: install.sh SERVICE TORCH
set -eu
service=$1 torch=$2
case "$service" in
  ingest|features|serving|monitor|trainer) extras="--extra $service" ;;
  demo) extras="--extra features --extra serving --extra flights --extra tables --extra monitor" ;;
  *) echo "SERVICE is ingest, features, serving, monitor, trainer or demo; not '$service'" >&2; exit 2 ;;
esac
uv=/opt/uv/bin/uv
"$uv" venv --quiet --python python3 /venv
packages=$(echo /venv/lib/python3*/site-packages)
if [ "$service" = trainer ] && [ "$torch" = cpu ]; then
  # The lock names torch's files on the public index, which are those with CUDA: here only its version is taken from it.
  version=$(sed -n 's/^torch==\([^ ]*\).*/\1/p' constraints.txt)
  if ! "$uv" pip install --quiet --python /venv/bin/python --torch-backend cpu "torch==$version"; then
    echo "torch without CUDA cannot be fetched here: installing the one in the lock, with CUDA (4 GB more)" >&2
    torch=locked
  fi
fi
if [ "$service" = trainer ] && [ "$torch" = cpu ]; then
  awk '/^torch==/ {skip=1} !skip {print} skip && !/\\$/ {skip=0}' constraints.txt >kept.txt
  "$uv" pip install --quiet --python /venv/bin/python -c kept.txt --torch-backend cpu -r pyproject.toml $extras
else
  "$uv" pip install --quiet --python /venv/bin/python -c constraints.txt -r pyproject.toml $extras
fi
if [ "$service" != trainer ] && [ -d "$packages/torch" ]; then
  echo "torch got into the image of $service: only trainer may need it" >&2; exit 1
fi
# Libraries' own tests, C headers and Feast's web page: 100 MB that nothing here runs.
rm -rf "$packages"/pandas/tests "$packages"/pyarrow/tests "$packages"/pyarrow/include "$packages"/dask/tests "$packages"/feast/ui
/venv/bin/python -m compileall -q -j 0 /venv/lib >/dev/null || true
mkdir -p /sbom
/opt/sbom/bin/cyclonedx-py environment --output-reproducible --of JSON -o "/sbom/$service.cdx.json" /venv

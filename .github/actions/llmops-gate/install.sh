#!/usr/bin/env bash
# Install llmops from the repository of this action, every library checked by its hash, and put it on the path.
set -euo pipefail
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
venv="$RUNNER_TEMP/llmops-venv"
python -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$source/requirements.lock"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation "$source"
echo "$venv/bin" >>"$GITHUB_PATH"

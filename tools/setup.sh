#!/usr/bin/env bash
# Make .venv with everything that development needs; quick when nothing has changed.
# With --system-only: nothing but Debian's packages for an off-screen display (as root).
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; set PYTHON to one." >&2
    exit 1
}

# Off-screen display and the libraries that Qt's xcb platform wants, on Debian as root.
packages=(xvfb xauth libgl1 libegl1 libgl1-mesa-dri libglx-mesa0 libopengl0 libdbus-1-3
    libfontconfig1 libglib2.0-0 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4
    libxcb-keysyms1 libxcb-image0 libxcb-render-util0 libxcb-randr0 libxcb-shape0
    libxcb-xinerama0 libxcb-xkb1)
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    missing=()
    for package in "${packages[@]}"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    if [ "${#missing[@]}" -gt 0 ]; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            "${missing[@]}" >/dev/null
    fi
elif [ "$(uname -s)" = Linux ] && [ -z "${DISPLAY:-}" ] && ! command -v xvfb-run >/dev/null; then
    echo "note: no display and no xvfb-run; tests that need a window will be skipped." >&2
fi

[ "${1:-}" != --system-only ] || exit 0

bin=.venv/bin
[ "${OS:-}" != Windows_NT ] || bin=.venv/Scripts
version=(-c "import sys; print(sys.version)")
if [ -n "${PYTHON:-}" ] && [ -x "$bin/python" ] &&
    [ "$("$python" "${version[@]}")" != "$("$bin/python" "${version[@]}")" ]; then
    rm -rf .venv # Another Python was asked for by name.
fi
stamp=.venv/.installed
wanted="$(cat pyproject.toml constraints.txt tools/setup.sh | cksum)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
[ -x "$bin/python" ] || "$python" -m venv .venv
# Python compiles the modules that are used, when they are; most never are.
pip=("$bin/python" -m pip --disable-pip-version-check install -qq --no-compile)
"${pip[@]}" --upgrade "pip>=25.1"
# First and exactly, so that a CPU build is taken where one is at hand.
"${pip[@]}" torch==2.13.0
"${pip[@]}" -c constraints.txt -e . --group dev
echo "$wanted" >"$stamp"

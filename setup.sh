#!/bin/sh
# Set up what `make` needs: a virtual environment with this package in it, and libarchive. Does nothing the second time.
#   setup.sh FOLDER [dev|bench]
set -eu
venv=$1
kind=${2:-}
cd "$(dirname "$0")"

say() { echo "setup: $*" >&2; }

install_package() { # install_package DEBIAN_NAME WHY: from the system's package manager, where that is allowed
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing $1 ($2)"
        apt-get -qq update >/dev/null 2>&1 || true
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$1" >/dev/null
    else
        say "$2: please install the package $1 (Debian, Ubuntu) or your system's like of it, then run this again"
        exit 1
    fi
}

find_python() {
    for candidate in ${PYTHON:-} python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            # a shim costs a tenth of a second at each start: take what is behind it
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    say "Python 3.11 or newer is needed and was not found; set PYTHON to one"
    exit 1
}

# what is measured is an ordinary installation of what is here now: an editable one starts slower
if [ "$kind" = bench ] && [ -e "$venv/.ready-bench" ]; then
    "$venv/bin/python" -m pip --disable-pip-version-check --quiet install --force-reinstall --no-deps .
fi
stamp=$venv/.ready-${kind:-run}
if [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ -x "$venv/bin/python" ]; then
    exit 0
fi

python=$(find_python)
if [ ! -x "$venv/bin/python" ]; then
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        install_package python3-venv "Python's venv module is missing"
        python=$(find_python)
    fi
    "$python" -m venv "$venv"
fi
if ! "$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libarchive.so.13")' 2>/dev/null &&
    ! "$venv/bin/python" -c 'import ctypes.util as u, sys; sys.exit(not u.find_library("archive"))' 2>/dev/null; then
    install_package libarchive13 "libarchive is missing"
fi

say "installing Python packages into $venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" 2>"$venv/pip.log" || { cat "$venv/pip.log" >&2; exit 1; }; }
if [ "$kind" = bench ]; then pip install .; else pip install --editable .; fi
if [ -n "$kind" ]; then
    "$venv/bin/python" - "$kind" >"$venv/$kind.txt" <<'PY'
import sys
import tomllib

print("\n".join(tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"][sys.argv[1]]))
PY
    pip install -r "$venv/$kind.txt"
fi
touch "$stamp"

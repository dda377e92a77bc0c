#!/bin/sh
# Installs what the Makefile's targets need and says what it cannot install.
#   lab/setup.sh venv STAMP   .venv with the tools of requirements.txt; PYTHON chooses the interpreter
#   lab/setup.sh other        .venv-other with the other line of Ansible (2.19 needs Python 3.11, 2.21 3.12 or newer)
#   lab/setup.sh lab          the Debian packages of the lab
#   lab/setup.sh browser      those of the test with a web browser
set -eu
cd "$(dirname "$0")/.."

# install PACKAGE...: those that are missing
install() {
    missing=
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ]; then root=; elif sudo -n true 2>/dev/null; then root='sudo -n'; else
        echo "setup: please install:$missing (for example: sudo apt-get install$missing)" >&2
        exit 1
    fi
    echo "setup: installing with apt:$missing"
    log=$(mktemp)
    if ! { $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        echo "setup: apt could not install$missing; the whole output is in $log" >&2
        exit 1
    fi
    rm -f "$log"
}

# make_venv FOLDER: the tools of requirements.txt under $PYTHON
make_venv() {
    "$PYTHON" -c 'import ensurepip' 2>/dev/null || install python3-venv
    echo "setup: $1 with $("$PYTHON" --version) and the tools of requirements.txt"
    rm -rf "$1"
    "$PYTHON" -m venv "$1"
    # uv takes a quarter of pip's time; pip knows settings of this machine (a mirror, a CA) that uv does not.
    uv=$(grep '^uv==' requirements.txt)
    "$1/bin/pip" install --quiet --disable-pip-version-check "$uv"
    "$1/bin/uv" pip install --quiet --python "$1/bin/python" --requirement requirements.txt ||
        "$1/bin/pip" install --quiet --disable-pip-version-check --requirement requirements.txt
    # As pip does; without it each start of ansible-playbook takes two thirds more. Of the hundred collections few are used.
    env -u PYTHONDONTWRITEBYTECODE "$1/bin/python" -m compileall -q -j 0 -x '/ansible_collections/' "$1/lib"
}

# Both lines of Ansible are supported, and a machine's python3 runs only one of them.
other() {
    stamp=.venv-other/$(sha256sum requirements.txt | cut -c1-12).stamp
    [ ! -e "$stamp" ] || return 0
    is_new='import sys; print(sys.version_info >= (3, 12))'
    mine=$(.venv/bin/python -c "$is_new")
    for PYTHON in python3.13 python3.12 python3.11 "$HOME"/.pyenv/versions/3.1[123].*/bin/python3; do
        other=$("$PYTHON" -c "$is_new" 2>/dev/null) || continue
        [ "$other" != "$mine" ] || continue
        make_venv .venv-other
        touch "$stamp"
        return 0
    done
    echo 'setup: no second Python (3.11 and 3.12 or newer) is here, so only one line of Ansible is tested' >&2
}

venv() {
    if [ -z "${PYTHON:-}" ]; then
        for PYTHON in python3.13 python3.12 python3.11 python3 none; do
            "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break
        done
    fi
    [ "$PYTHON" != none ] || { echo "setup: please install Python 3.11 or newer (or name one: make PYTHON=...)" >&2; exit 1; }
    make_venv .venv
    # Ansible finds this checkout under the collection's name.
    mkdir -p .ansible/collections/ansible_collections/onprem
    ln -sfn ../../../.. .ansible/collections/ansible_collections/onprem/airflow
    touch "$1"
}

case "$1" in
    venv) venv "$2" ;;
    other) other ;;
    lab) install podman runc mmdebstrap uidmap netavark aardvark-dns iptables openssh-client ;;
    browser) install chromium chromium-driver ;;
    *) echo "usage: $0 venv STAMP | other | lab | browser" >&2; exit 2 ;;
esac

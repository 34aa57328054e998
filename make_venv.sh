#!/bin/sh
# Makes the virtual environment that the Makefile works in: sh make_venv.sh FOLDER
# Installs the pinned versions of requirements.txt, then the project itself. PYTHON=... chooses the Python.
set -eu
venv=$1

recent='import sys; sys.exit(sys.version_info < (3, 11))'
if [ -n "${PYTHON:-}" ]; then
    candidates=$PYTHON
else
    candidates='python3.13 python3.12 python3.11 python3 python'
fi
for candidate in $candidates; do
    if "$candidate" -c "$recent" 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "${python:-}" ]; then
    found=$(for candidate in $candidates; do "$candidate" -c \
        'import sys; print(sys.executable, "is", sys.version.split()[0])' 2>/dev/null || true; done)
    echo "Python 3.11 or newer is needed. ${found:-No Python was found} (looked for: $candidates)." >&2
    echo "Install one, or name it: make PYTHON=/path/to/python3.12" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    echo "$("$python" --version) lacks the modules venv and ensurepip." >&2
    echo "On Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 1
fi

echo "Making $venv with $("$python" --version) and installing the packages (about 1.3 GB on disk)."
rm -rf "$venv"
"$python" -m venv "$venv"
if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt; then
    echo "The packages could not be installed; pip says above which and why. They come from PyPI, so without a" >&2
    echo "network this fails: connect, or point pip at a mirror (PIP_INDEX_URL) or a folder of wheels (PIP_FIND_LINKS)." >&2
    exit 1
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .

#!/usr/bin/env bash
# model-signing 1.1.1: it imports OpenSSL (pyOpenSSL), and its metadata does not ask for it.
#
# Guess, written down before the run: `pip install model-signing` brings a client that cannot start, and with pyOpenSSL beside
# it, it starts.
#
# Seen on 2026-11-30: ModuleNotFoundError: No module named 'OpenSSL' at `model_signing --help`; with pyopenssl installed the
# help is printed. So the extra octc[oms] names pyopenssl too.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check model-signing==1.1.1
if "$dir/venv/bin/python" -c 'import OpenSSL' 2>/dev/null; then
  echo "OpenSSL came with it: the finding no longer holds"
  exit 1
fi
said=$("$dir/venv/bin/model_signing" --help 2>&1 || true)
case "$said" in *"No module named 'OpenSSL'"*) echo "as found: the client does not start" ;; *) echo "the client starts without it"; exit 1 ;; esac
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pyopenssl
"$dir/venv/bin/model_signing" --help >/dev/null && echo "as found: with pyopenssl it does"

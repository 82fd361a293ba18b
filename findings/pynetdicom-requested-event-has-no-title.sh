#!/usr/bin/env bash
# pynetdicom 3.0.4: in a handler of EVT_REQUESTED the requestor has no AE title yet.
#
# Guess, written down before the run: the event that says that an association was requested is the place to judge who asks, so
# `event.assoc.requestor.ae_title` is the calling title of the request, as it is in every later event.
#
# Seen on 2026-11-30: it is an empty text there, and the title only in a handler of EVT_ACCEPTED. A list of permitted peers that
# is looked up by it in EVT_REQUESTED finds nobody, and a rule like "refuse those that are listed for another address" refuses
# nobody. The request itself has it: `event.assoc.requestor.primitive.calling_ae_title`.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pydicom==3.0.2 pynetdicom==3.0.4
cd "$dir"
HOME="$dir" venv/bin/python - <<'PY'
import time
from pynetdicom import AE, evt

seen = {}

def note(name):
    def handler(event):
        requestor = event.assoc.requestor
        seen[name] = (str(requestor.ae_title).strip(), str(requestor.primitive.calling_ae_title).strip())
    return handler

server = AE(ae_title="SERVER")
server.add_supported_context("1.2.840.10008.1.1")
handlers = [(evt.EVT_REQUESTED, note("requested")), (evt.EVT_ACCEPTED, note("accepted"))]
running = server.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
client = AE(ae_title="DEVICE")
client.add_requested_context("1.2.840.10008.1.1")
association = client.associate("127.0.0.1", running.server_address[1])
assert association.is_established
association.release()
time.sleep(0.5)
server.shutdown()
for name, (title, request) in seen.items():
    print(f"{name}: requestor.ae_title {title!r}, request {request!r}")
assert seen["requested"] == ("", "DEVICE"), "the behaviour changed"
assert seen["accepted"] == ("DEVICE", "DEVICE"), "the behaviour changed"
PY

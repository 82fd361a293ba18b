"""octc: a small classifier of retinal OCT B-scans, and how good it is. Its import keeps dependencies from sending anything."""

from octc.core.telemetry import keep_quiet

keep_quiet()

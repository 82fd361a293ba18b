"""Options of jobs: one dataclass is the argument of the library and the options of the command."""

from __future__ import annotations

from dataclasses import dataclass

from octc.core.options import Key, option


@dataclass(frozen=True)
class BenchOptions:
    """Options of `octc.bench`. Times are texts with a unit ("30ms", "90s"); None takes the value of the profile.

    Attributes:
        scenario: "single" (latency) or "offline" (throughput).
        vs: "teacher" or "none": what the artifacts are timed against.
        max_p50, max_p90, max_p99, min_throughput, max_mj, require_speedup: gates, judged on the unfavourable limit of the 95 %
            interval.
        power_csv: readings of a power meter. allow_power_cap: rows measured at the GPU's power cap stay valid.
    """

    scenario: str = option(
        "single", choices=("single", "offline"), shown="single (latency, one query after the other) or offline (throughput)"
    )
    batch: int | None = option(None, shown="Batch size (single: 1 and 8; offline: the best)")
    duration: str | None = option(
        None, shown="Minimum time of a row, for example 90s (60s; with --quick 10s)", key=Key(float, above=0)
    )
    min_queries: int | None = option(None, shown="Minimum queries of a row (1024; with --quick 459)", key=Key(int, low=1))
    max_duration: str | None = option(None, shown="Maximum time of a row (600s)")
    quick: bool = option(False, shown="A short profile: not comparable, not for publication", names=("--quick",))
    threads: int | None = option(None, shown="Threads of every engine (physical cores within the quota)", key=Key(int, low=1))
    vs: str = option("teacher", choices=("teacher", "none"), shown="teacher or none: what the artifacts are compared with")
    max_p50: str | None = option(None, shown="Gate, for example 30ms")
    max_p90: str | None = option(None, shown="Gate, for example 30ms")
    max_p99: str | None = option(None, shown="Gate, for example 50ms")
    min_throughput: float | None = option(None, shown="Gate, images per second (--scenario offline)")
    max_mj: float | None = option(None, shown="Gate, millijoules per image")
    require_speedup: float | None = option(None, shown="Gate: INT8 at least so many times as fast as float")
    power: bool = option(True, shown="Read power where a sensor is", names=("--power/--no-power",))
    power_csv: str | None = option(None, shown="Readings of a meter: time, watts", metavar="FILE")
    allow_power_cap: bool = option(False, shown="Rows at the GPU's power cap stay valid", names=("--allow-power-cap",))


@dataclass(frozen=True)
class ServeOptions:
    """Options of `octc.serve`: address, share of the machine, limits.

    Attributes:
        host: address to listen on. port, grpc_port: 0 lets the system choose. http_only: no gRPC.
        token_file: file with the clients' token (or set OCTC_SERVE_TOKEN); required at any address but loopback.
        tls_cert, tls_key: PEM files; both or neither.
        max_batch: largest batch assembled from several clients. delay: milliseconds that an image may wait for others although
            an engine is free. instances: engines per artifact. threads: per engine; None: from the container's quota.
        queue: images that may wait. requests: handled at the same time. timeout: seconds per request.
        max_bytes: MiB per upload. max_pixels: millions per image. max_frames: images and B-scans per upload.
        monitor: store that receives a sketch of each prediction (`octc.monitor`); None: none.
        uploads: folder for uploads while they are processed; None: in memory (/dev/shm) if available.
    """

    host: str = option("127.0.0.1", shown="Address to listen at; every one but loopback needs a token")
    port: int = option(8000, shown="Port of HTTP (0: any)", key=Key(int, low=0, high=65535))
    grpc_port: int = option(8001, shown="Port of gRPC (0: any)", key=Key(int, low=0, high=65535))
    http_only: bool = option(False, shown="No gRPC", names=("--http-only",))
    token_file: str | None = option(
        None, shown="File with the token of clients (or OCTC_SERVE_TOKEN)", key=Key(str), metavar="FILE"
    )
    tls_cert: str | None = option(None, shown="Certificate (PEM)", key=Key(str), metavar="FILE")
    tls_key: str | None = option(None, shown="Its key (PEM)", key=Key(str), metavar="FILE")
    max_batch: int = option(8, shown="Images of several clients that are run together", key=Key(int, low=1, high=32))
    delay: float = option(0.0, shown="Milliseconds that an image waits for others", key=Key(float, low=0, high=1000))
    instances: int | None = option(None, shown="Engines of each artifact (from the quota)", key=Key(int, low=1))
    threads: int | None = option(None, shown="Threads of each engine (from the quota)", key=Key(int, low=1))
    queue: int = option(64, shown="Images that may wait; more are refused", key=Key(int, low=1, high=4096))
    requests: int = option(64, shown="Requests at once; more are refused", key=Key(int, low=1, high=4096))
    timeout: float = option(60.0, shown="Seconds of a request", key=Key(float, above=0, high=3600))
    max_bytes: int = option(256, shown="MiB of an upload", key=Key(int, low=1, high=4096))
    max_pixels: float = option(64.0, shown="Millions of pixels of an image", key=Key(float, above=0, high=64))
    max_frames: int = option(1024, shown="Images and B-scans of an upload", key=Key(int, low=1, high=10000))
    monitor: str | None = option(
        None, shown="Add a sketch of each answer to files to this store", key=Key(str), metavar="STORE"
    )
    uploads: str | None = option(None, shown="Folder for uploads while they are answered (memory)", key=Key(str), metavar="DIR")


@dataclass(frozen=True)
class ReportOptions:
    """Options of `octc.report`.

    Attributes:
        html, md: only the page, or only Markdown with its figures; neither: both.
        checklist: "claim" or "tripod-ai". photos: show the images whose prediction changed (recorded in the test-set log).
        out: the folder; None: reports/report-<time>.
    """

    html: bool = option(False, shown="The page (and not the Markdown)", names=("--html",))
    md: bool = option(False, shown="The Markdown with its figures (and not the page)", names=("--md",))
    checklist: str | None = option(
        None, choices=("claim", "tripod-ai"), shown="claim or tripod-ai, with what octc knows filled in"
    )
    sbom: bool = option(False, shown="A bill of materials (CycloneDX) beside the report", names=("--sbom",))
    photos: bool = option(False, shown="Show the images whose label changed", names=("--photos",))
    redact_ids: bool = option(False, shown="Images by keyed checksums instead of their names", names=("--redact-ids",))
    out: str | None = option(None, shown="Where to (reports/report-<time>)", names=("-o", "--out"), metavar="DIR")


@dataclass(frozen=True)
class GatewayOptions:
    """How volumes come in and reports go out.

    Attributes:
        dicom: AET@PORT or AET@HOST:PORT of a C-STORE provider; None: none. Without a host it is loopback.
        watch: folder that files are dropped into; None: none.
        spool: folder of the durable queue. report_to: AET@HOST:PORT, tls:AET@HOST:PORT, https://.../studies, or a folder.
        peers: AE titles that may send, AET or AET@ADDRESS, with commas between; needed at every address but loopback.
            With AET@ADDRESS:PORT the peer gets reports of storage commitment there.
        keep: volumes stay in the queue's folder for good when they are answered, and storage commitment is offered.
        heat_map: a Secondary Capture with the heat map of the B-scan that says most for the answer.
        retry_hours: of attempts to send before an answer becomes a dead letter.
        dicom_cert, dicom_key, dicom_ca: PEM files; with the third one a peer has to show a certificate of it.
        max_object: MiB of one object. max_queued: GiB of those that wait. associations: at once.
    """

    dicom: str | None = option(
        None, shown="Take OPT volumes by C-STORE (loopback without HOST)", key=Key(str), metavar="AET@[HOST:]PORT"
    )
    watch: str | None = option(None, shown="Take DICOM files that are dropped into a folder", key=Key(str), metavar="DIR")
    spool: str | None = option(
        None, shown="Folder of the durable queue, dead letters and audit log", key=Key(str), metavar="DIR"
    )
    report_to: str | None = option(
        None,
        shown="Where reports go: AET@HOST:PORT, tls:AET@HOST:PORT, https://.../studies or a folder",
        key=Key(str),
        metavar="TO",
    )
    peers: str | None = option(
        None, shown="AE titles that may send, with commas; AET@ADDRESS[:PORT] too", key=Key(str), metavar="AET,..."
    )
    keep: bool = option(False, shown="Keep volumes for good, and offer storage commitment", names=("--keep",))
    heat_map: bool = option(False, shown="A heat map as Secondary Capture too", names=("--heat-map",))
    retry_hours: float = option(
        72.0, shown="Hours of attempts to send before a dead letter", key=Key(float, above=0, high=8760)
    )
    dicom_cert: str | None = option(None, shown="Certificate for DICOM over TLS (PEM)", key=Key(str), metavar="FILE")
    dicom_key: str | None = option(None, shown="Its key (PEM)", key=Key(str), metavar="FILE")
    dicom_ca: str | None = option(None, shown="Certificates that peers are checked with (PEM)", key=Key(str), metavar="FILE")
    max_object: int = option(1024, shown="MiB of one DICOM object", key=Key(int, low=1, high=65536))
    max_queued: int = option(32, shown="GiB of volumes that wait", key=Key(int, low=1, high=65536))
    associations: int = option(8, shown="DICOM associations at once", key=Key(int, low=1, high=256))

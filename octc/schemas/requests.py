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
        "single", choices=("single", "offline"), shown="single: latency, one query after the other; offline: throughput"
    )
    batch: int | None = option(None, shown="Batch size (single: 1 and 8; offline: the best)")
    duration: str | None = option(
        None, shown="Minimum duration of a row, for example 90s (60s; with --quick 10s)", key=Key(float, above=0)
    )
    min_queries: int | None = option(
        None, shown="Minimum number of queries of a row (1024; with --quick 459)", key=Key(int, low=1)
    )
    max_duration: str | None = option(None, shown="Maximum duration of a row (600s)")
    quick: bool = option(False, shown="Short measurement: not comparable, not for publication", names=("--quick",))
    threads: int | None = option(
        None, shown="Threads of every engine (physical cores within the CPU quota)", key=Key(int, low=1)
    )
    vs: str = option("teacher", choices=("teacher", "none"), shown="Reference for the speed-up: teacher or none")
    max_p50: str | None = option(None, shown="Gate: largest median latency, for example 30ms")
    max_p90: str | None = option(None, shown="Gate: largest 90th percentile of latency, for example 30ms")
    max_p99: str | None = option(None, shown="Gate: largest 99th percentile of latency, for example 50ms")
    min_throughput: float | None = option(None, shown="Gate: smallest throughput, images per second (--scenario offline)")
    max_mj: float | None = option(None, shown="Gate: largest energy per image, millijoules")
    require_speedup: float | None = option(None, shown="Gate: smallest speed-up of INT8 over float")
    power: bool = option(True, shown="Measure power if there is a sensor", names=("--power/--no-power",))
    power_csv: str | None = option(None, shown="Readings of a power meter (CSV): time, watts", metavar="FILE")
    allow_power_cap: bool = option(
        False, shown="Accept rows measured at the GPU's power cap as valid", names=("--allow-power-cap",)
    )


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

    host: str = option("127.0.0.1", shown="Address to listen on; any other than loopback needs a token")
    port: int = option(8000, shown="HTTP port (0: any)", key=Key(int, low=0, high=65535))
    grpc_port: int = option(8001, shown="gRPC port (0: any)", key=Key(int, low=0, high=65535))
    http_only: bool = option(False, shown="Serve HTTP only, no gRPC", names=("--http-only",))
    token_file: str | None = option(
        None, shown="File with the clients' token (or set OCTC_SERVE_TOKEN)", key=Key(str), metavar="FILE"
    )
    tls_cert: str | None = option(None, shown="TLS certificate (PEM)", key=Key(str), metavar="FILE")
    tls_key: str | None = option(None, shown="Private key of the TLS certificate (PEM)", key=Key(str), metavar="FILE")
    max_batch: int = option(8, shown="Largest batch assembled from several clients", key=Key(int, low=1, high=32))
    delay: float = option(
        0.0, shown="Longest wait of an image for others in its batch, milliseconds", key=Key(float, low=0, high=1000)
    )
    instances: int | None = option(None, shown="Engines per artifact (from the CPU quota)", key=Key(int, low=1))
    threads: int | None = option(None, shown="Threads per engine (from the CPU quota)", key=Key(int, low=1))
    queue: int = option(64, shown="Largest number of waiting images; more are refused", key=Key(int, low=1, high=4096))
    requests: int = option(
        64, shown="Largest number of simultaneous requests; more are refused", key=Key(int, low=1, high=4096)
    )
    timeout: float = option(60.0, shown="Time limit of a request, seconds", key=Key(float, above=0, high=3600))
    max_bytes: int = option(256, shown="Largest upload, MiB", key=Key(int, low=1, high=4096))
    max_pixels: float = option(64.0, shown="Largest image, millions of pixels", key=Key(float, above=0, high=64))
    max_frames: int = option(1024, shown="Largest number of images and B-scans of an upload", key=Key(int, low=1, high=10000))
    monitor: str | None = option(
        None,
        shown="Add a summary of each prediction on uploaded files to this store (octc monitor)",
        key=Key(str),
        metavar="STORE",
    )
    uploads: str | None = option(
        None, shown="Folder for uploads while they are processed (in memory)", key=Key(str), metavar="DIR"
    )


@dataclass(frozen=True)
class ReportOptions:
    """Options of `octc.report`.

    Attributes:
        html, md: only the page, or only Markdown with its figures; neither: both.
        checklist: "claim" or "tripod-ai". photos: show the images whose prediction changed (recorded in the test-set log).
        out: the folder; None: reports/report-<time>.
    """

    html: bool = option(False, shown="Write only the HTML page", names=("--html",))
    md: bool = option(False, shown="Write only the Markdown with its figures", names=("--md",))
    checklist: str | None = option(
        None, choices=("claim", "tripod-ai"), shown="Add a checklist with known items filled in: claim or tripod-ai"
    )
    sbom: bool = option(False, shown="Write a bill of materials (CycloneDX) beside the report", names=("--sbom",))
    photos: bool = option(False, shown="Show the images whose predicted class changed", names=("--photos",))
    redact_ids: bool = option(False, shown="Replace image names by keyed checksums", names=("--redact-ids",))
    out: str | None = option(None, shown="Output folder (reports/report-<time>)", names=("-o", "--out"), metavar="DIR")


@dataclass(frozen=True)
class GatewayOptions:
    """Options of `octc.serve` for incoming volumes and outgoing reports.

    Attributes:
        dicom: AET@PORT or AET@HOST:PORT of the C-STORE provider to run; None: none. Without a host it is loopback.
        watch: folder to watch for new files; None: none.
        spool: folder of the durable queue. report_to: AET@HOST:PORT, tls:AET@HOST:PORT, https://.../studies, or a folder.
        peers: comma-separated AE titles that may send, AET or AET@ADDRESS; required at any address but loopback. With
            AET@ADDRESS:PORT the peer receives storage commitment reports there.
        keep: keep volumes permanently in the queue's folder after they are processed, and offer storage commitment.
        heat_map: also send a Secondary Capture with the heat map of the B-scan that contributes most to the prediction.
        retry_hours: hours of attempts to send a report before it becomes a dead letter.
        dicom_cert, dicom_key, dicom_ca: PEM files; with dicom_ca a peer must present a certificate that it issued.
        max_object: MiB per DICOM object. max_queued: GiB of waiting volumes. associations: simultaneous DICOM associations.
    """

    dicom: str | None = option(
        None, shown="Receive OPT volumes by C-STORE (loopback without HOST)", key=Key(str), metavar="AET@[HOST:]PORT"
    )
    watch: str | None = option(None, shown="Process DICOM files that are placed in this folder", key=Key(str), metavar="DIR")
    spool: str | None = option(
        None, shown="Folder of the durable queue, dead letters and audit log", key=Key(str), metavar="DIR"
    )
    report_to: str | None = option(
        None,
        shown="Destination of reports: AET@HOST:PORT, tls:AET@HOST:PORT, https://.../studies or a folder",
        key=Key(str),
        metavar="TO",
    )
    peers: str | None = option(
        None, shown="AE titles that may send, comma-separated: AET or AET@ADDRESS[:PORT]", key=Key(str), metavar="AET,..."
    )
    keep: bool = option(False, shown="Keep volumes permanently, and offer storage commitment", names=("--keep",))
    heat_map: bool = option(False, shown="Send a heat map as Secondary Capture too", names=("--heat-map",))
    retry_hours: float = option(
        72.0, shown="Hours of attempts to send a report before it becomes a dead letter", key=Key(float, above=0, high=8760)
    )
    dicom_cert: str | None = option(None, shown="TLS certificate for DICOM (PEM)", key=Key(str), metavar="FILE")
    dicom_key: str | None = option(None, shown="Private key of the DICOM certificate (PEM)", key=Key(str), metavar="FILE")
    dicom_ca: str | None = option(None, shown="CA certificates to verify DICOM peers with (PEM)", key=Key(str), metavar="FILE")
    max_object: int = option(1024, shown="Largest DICOM object, MiB", key=Key(int, low=1, high=65536))
    max_queued: int = option(32, shown="Largest total size of waiting volumes, GiB", key=Key(int, low=1, high=65536))
    associations: int = option(8, shown="Largest number of simultaneous DICOM associations", key=Key(int, low=1, high=256))

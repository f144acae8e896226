"""What a running replica counts about itself, and how it tells: probe replies, metrics, log lines.

Counters are plain integers, touched on the hot path; everything else happens when somebody asks.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bft.errors import TransportError
from bft.events import Committed, Evidence, Progress, Rejected, Report, ViewEntered
from bft.ids import Nanos, ReplicaId, peer_name
from bft.runtime.archive import Archive
from bft.runtime.evidence import EvidenceKeeper

NANOS_PER_SECOND = 1_000_000_000
REPORT_BYTES_MAX = 1 << 16
LINES_PER_SECOND_MAX = 50
ALARMS = ("diverged", "differs", "split")
Summary = Callable[[], dict[str, object]]


@dataclass(slots=True)
class Stats:
    """Counters of one replica process.

    Attributes:
        rejected: packets that admission or the protocol refused, by reason.
        dropped: frames not sent or not read, by cause (all are repaired by the protocol).
        delayed: how often a client was made to wait, by what it had used up: envelopes, messages, bytes, or our
            patience with bad signatures (`bft.runtime.quota`); or since it had more than its share, and a `backlog`.
        frames_in: frames read.
        packets_out: packets encoded for sending.
        writes: transactions of the store.
        records: records in them.
        write_ns: time spent in them.
        no_voucher: how often nobody was dialed, since nobody vouches for this replica, whose key no epoch names.
        scrubbed: stored pages that the scrub has read; `rotten` of them were damaged, in `scrubs` whole passes.
    """

    rejected: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    delayed: Counter[str] = field(default_factory=Counter)
    frames_in: int = 0
    packets_out: int = 0
    writes: int = 0
    records: int = 0
    write_ns: int = 0
    no_voucher: int = 0
    scrubbed: int = 0
    rotten: int = 0
    scrubs: int = 0


class Reporter:
    """Counts and logs what a node reports.

    At most `LINES_PER_SECOND_MAX` lines a second are logged: a peer that provokes reports must not fill the disk.
    """

    def __init__(
        self,
        me: ReplicaId,
        stats: Stats,
        listener: Callable[[Report], None] | None = None,
        keeper: EvidenceKeeper | None = None,
        archive: Archive | None = None,
    ) -> None:
        """Report for replica `me`; `listener` gets every report as well, `keeper` all evidence, `archive` its part."""
        self._keeper = keeper
        self._archive = archive
        self._log = logging.getLogger(f"bft.{peer_name(me)}")
        self._stats = stats
        self._listener = listener
        self._second = 0
        self._lines = 0

    def take(self, report: Report, now: Nanos) -> None:
        """Count a report, and log it if it is for people."""
        match report:
            case Rejected():
                self._stats.rejected[report.reason] += 1
                if report.evidence is not None:
                    self.take(report.evidence, now)
            case Evidence():
                if self._keeper is not None:
                    self._keeper.keep(report)
                if self._may_log(now):
                    self._log.warning("evidence against r%d: %s", report.accused, report.kind)
            case Progress(what="forgotten"):
                self._log.error("refuses to vote from now on: %s", report.detail)
            case Progress():
                if self._may_log(now):
                    level = logging.WARNING if report.what in ALARMS else logging.INFO
                    self._log.log(level, "view=%d seq=%d %s %s", report.view, report.seq, report.what, report.detail)
            case Committed():
                if self._archive is not None:
                    self._archive.commits.append(report.certificate)
            case ViewEntered():
                if self._archive is not None:
                    self._archive.enter(report.new_view)
        if self._listener is not None:
            self._listener(report)

    def _may_log(self, now: Nanos) -> bool:
        second = now // NANOS_PER_SECOND
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND_MAX:
            self._stats.dropped["log-lines"] += 1
            return False
        return True


def account(summary: dict[str, object], stats: Stats, extra: dict[str, object]) -> bytes:
    """A replica's account of itself as JSON, for `ProbeReply`."""
    whole = {
        **summary,
        **extra,
        "rejected": dict(stats.rejected),
        "dropped": dict(stats.dropped),
        "delayed": dict(stats.delayed),
        "no_voucher": stats.no_voucher,
        "frames_in": stats.frames_in,
        "packets_out": stats.packets_out,
        "writes": stats.writes,
        "records": stats.records,
        "scrub": {"pages": stats.scrubbed, "damaged": stats.rotten, "passes": stats.scrubs},
        "write_ms_mean": round(stats.write_ns / 1e6 / stats.writes, 3) if stats.writes else 0.0,
        "pid": os.getpid(),
    }
    text = json.dumps(whole, default=str).encode()
    return text if len(text) <= REPORT_BYTES_MAX else b'{"error": "the account is too long"}'


class Collector:
    """Prometheus metrics, computed when scraped (in the exporter's own thread, from copies)."""

    def __init__(self, summary: Summary, stats: Stats) -> None:
        self._summary = summary
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """One gauge per number of the summary, and the counters."""
        for name, value in self._summary().items():
            if isinstance(value, int):
                yield GaugeMetricFamily(f"bft_{name}", f"{name} of the replica", value=int(value))
        stats = self._stats
        yield _labelled("bft_rejected", "packets refused", "reason", dict(stats.rejected))
        yield _labelled("bft_dropped", "frames dropped", "cause", dict(stats.dropped))
        yield _labelled("bft_delayed", "times a client had to wait", "cause", dict(stats.delayed))
        for name, value in (
            ("frames_in", stats.frames_in),
            ("packets_out", stats.packets_out),
            ("no_voucher", stats.no_voucher),
            ("store_writes", stats.writes),
            ("store_records", stats.records),
            ("store_write_seconds", stats.write_ns / NANOS_PER_SECOND),
        ):
            yield CounterMetricFamily(f"bft_{name}", f"{name} since start", value=value)


def start_metrics(port: int, collector: Collector) -> Callable[[], None]:
    """Serve metrics on 127.0.0.1; returns what stops it.

    Raises:
        TransportError: the port cannot be bound.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, "127.0.0.1", registry)
    except OSError as error:
        raise TransportError(f"127.0.0.1:{port}: cannot serve metrics: {error.strerror}") from error

    def stop() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return stop


def log_to_stderr(level: int = logging.INFO) -> None:
    """Log lines for people: time, level, replica, text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s %(message)s"))
    logger = logging.getLogger("bft")
    logger.handlers = [handler]
    logger.setLevel(level)


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    entries: Iterable[tuple[str, int]] = sorted(values.items())
    for value, count in entries:
        family.add_metric([value], count)
    return family

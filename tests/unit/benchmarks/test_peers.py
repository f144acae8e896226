"""Adapters of other systems, as far as they can be judged without those systems."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.case import Case
from benchmarks.peers import MODULES, Absent, adapter, bft_smart
from benchmarks.suites import SUITES


def test_every_system_of_a_case_has_an_adapter() -> None:
    systems = {case.system for cases in SUITES.values() for case in cases.values()} - {"bft"}
    assert systems == set(MODULES)
    for system in systems:
        assert callable(adapter(system).measure)


@pytest.mark.parametrize(("n", "crash", "byzantine"), [(4, 3, 4), (7, 5, 7), (13, 9, 13)])
def test_crash_tolerant_systems_run_with_fewer_replicas(n: int, crash: int, byzantine: int) -> None:
    assert Case(system="etcd", n=n).replicas == Case(system="zookeeper", n=n).replicas == crash
    assert Case(system="bft", n=n).replicas == Case(system="bft-smart", n=n).replicas == byzantine
    assert Case(system="single-server", n=n).replicas == 1


@pytest.mark.parametrize(
    ("system", "line"),
    [
        ("etcd", "apt-get install etcd-server"),
        ("zookeeper", "apt-get install zookeeper"),
        ("bft-smart", "BFT_SMART_HOME"),
    ],
)
def test_absent_system_says_how_to_provide_it(
    system: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("BFT_SMART_HOME", raising=False)
    with pytest.raises(Absent, match=line):
        adapter(system).measure(Case(system=system, durability="power"), 1.0)  # type: ignore[arg-type]


def test_bft_smart_configuration_is_a_copy_for_n_servers(tmp_path: Path) -> None:
    """Settings that are not ours stay; a view of an earlier run, which would win over them, goes."""
    source = tmp_path / "config"
    source.mkdir()
    (source / "currentView").write_bytes(b"old")
    (source / "hosts.config").write_text("0 10.0.0.1 11000 11001\n")
    (source / "system.config").write_text(
        "system.servers.num = 4\nsystem.servers.f = 1\n# note\nsystem.totalordermulticast.maxbatchsize = 1024\n"
    )
    target = tmp_path / "copy"
    bft_smart.configure(source, target, 7)
    lines = (target / "system.config").read_text().splitlines()
    assert "system.servers.num = 7" in lines
    assert "system.servers.f = 2" in lines
    assert "system.initial.view = 0,1,2,3,4,5,6" in lines
    assert "system.totalordermulticast.maxbatchsize = 1024" in lines
    assert "system.servers.num = 4" not in lines
    hosts = [line.split() for line in (target / "hosts.config").read_text().splitlines()]
    assert [host[:2] for host in hosts] == [[str(index), "127.0.0.1"] for index in range(7)]
    assert len({port for host in hosts for port in host[2:]}) == 14
    assert not (target / "currentView").exists()
    assert (source / "currentView").exists()


def test_bft_smart_figures_are_read_from_the_servers_own_lines() -> None:
    log = (
        "Ready to process operations\n--- Measurements after 1000 ops (1000 samples) ---\n"
        "Throughput = 5831.5 operations/sec (Maximum observed: 6000.0 ops/sec)\n"
        "Throughput = 6100.0 operations/sec (Maximum observed: 6100.0 ops/sec)\n"
    )
    assert bft_smart.throughputs(log) == [5831.5, 6100.0]

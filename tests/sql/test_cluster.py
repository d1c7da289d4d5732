"""The cluster that the stack and the tests run on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from ops.servers.postgres import PASSWORD, running_cluster
from ops.stack.postgres import PostgresCluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[PostgresCluster]:
    with running_cluster() as cluster:
        yield cluster


def test_cluster__after_kill_9__starts_again(cluster: PostgresCluster) -> None:
    old = cluster.pid()
    cluster.kill()
    assert cluster.pid() is None
    assert (cluster.data_dir / "postmaster.pid").exists()
    cluster.start()
    assert cluster.pid() not in (None, old)


def test_cluster__stale_pid_of_another_program__does_not_keep_it_down(
    cluster: PostgresCluster,
) -> None:
    cluster.kill()
    pid_file = cluster.data_dir / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    assert cluster.pid() is None
    cluster.start()
    assert cluster.is_ready()


def test_cluster__start_while_running__does_nothing(cluster: PostgresCluster) -> None:
    pid = cluster.pid()
    cluster.start()
    assert cluster.pid() == pid


def test_cluster__stop__ends_it_and_start_brings_it_back(cluster: PostgresCluster) -> None:
    cluster.stop()
    assert not cluster.is_ready()
    assert not (cluster.data_dir / "postmaster.pid").exists()
    cluster.start()
    assert cluster.is_ready()


def test_cluster__a_wrong_password__is_refused_on_tcp_and_socket(
    cluster: PostgresCluster,
) -> None:
    wrong = replace(cluster, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(wrong.superuser_url())
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host=str(cluster.socket_dir), port=cluster.port, user="postgres", password="wrong"
        )
    with psycopg.connect(
        host=str(cluster.socket_dir), port=cluster.port, user="postgres", password=PASSWORD
    ) as conn:
        assert conn.execute("SHOW fsync").fetchone() == ("off",)  # the tests' cluster only


def test_cluster__its_repr__keeps_the_password(cluster: PostgresCluster) -> None:
    assert PASSWORD not in repr(cluster)

"""`./run replay` and `./run send` on a whole stack; devices during an outage."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from device.journal import read_published
from doorstep.credentials import driver_token
from doorstep.provision import owner_connection
from ops.ledger import Ledger, compare
from ops.servers.waiting import wait_until
from ops.stack.stack import Stack
from tests.track_files import FILES, ROWS

PROJECT = Path(__file__).resolve().parents[2]
SHARED = PROJECT.parent / "shared" / "data" / "gps"
SAMPLE = "simulators/tracks/delivery.gpx"
PATIENT = {"ACK_EVERY_S": "30"}  # a device waits four periods for its last ack


def run(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DOORSTEP_HOME": str(stack.paths.root)}
    argv = [sys.executable, "-m", "ops", *arguments]
    return subprocess.run(
        argv, env=environment, cwd=PROJECT, capture_output=True, text=True, timeout=300, check=False
    )


def account(stack: Stack, driver_id: str) -> Ledger:
    boots = read_published(stack.paths.journals / f"device-{driver_id}.sqlite")
    with owner_connection(stack.database_admin_url) as conn:
        return compare(conn, boots)


@pytest.mark.parametrize(
    ("track", "driver_id", "speedup", "fixes"),
    [
        (SAMPLE, "anna", "100", 260),
        ("limerick_bus304/304_to_UL_2019-02-18_0745.gpx", "bus304", "300", 2144),
        ("barefoot_munich/x0001-001.csv", "munich", "100", 1194),
    ],
)
def test_replay__a_track__every_fix_is_committed(
    stack: Stack, track: str, driver_id: str, speedup: str, fixes: int
) -> None:
    path = PROJECT / track if track == SAMPLE else SHARED / track
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    done = run(stack, "replay", str(path), "--driver", driver_id, "--speedup", speedup)
    assert done.returncode == 0, done.stderr
    assert f"{driver_id}: {fixes:,} fixes published" in done.stdout
    assert f"{fixes:,} committed" in done.stdout
    ledger = account(stack, driver_id)
    assert ledger.agrees, ledger.complaints()
    assert ledger.committed == fixes


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(("z", "marks.kml"))])
def test_replay__each_format__is_published_and_committed(
    stack: Stack, tmp_path: Path, name: str
) -> None:
    driver_id = name.replace(".", "-").lower()
    (tmp_path / name).write_bytes(FILES[name])
    arguments = ("--driver", driver_id, "--speedup", "100")
    done = run(stack, "replay", str(tmp_path / name), *arguments)
    assert done.returncode == 0, done.stderr
    assert "3 committed" in done.stdout
    assert "3 points read from " in done.stdout
    ledger = account(stack, driver_id)
    assert ledger.agrees, ledger.complaints()
    assert ledger.committed == 3


def test_replay__own_columns_and_bad_points__commits_the_rest_and_says_why(
    stack: Stack, tmp_path: Path
) -> None:
    rows = [f"{time},{lat},{lon},36" for time, lat, lon in ROWS]
    bad = [
        "noon,43.77,11.25,36",
        f"{ROWS[0][0]},99,11.25,36",
        "2004-09-15T10:00:04Z,43.77,11.25,36",
    ]
    (tmp_path / "log.csv").write_text("\n".join(["seen,lat,lon,v", *rows, *bad]))
    columns = ("--column", "time=seen", "--column", "speed=v", "--speed-unit", "km/h")
    done = run(stack, "replay", str(tmp_path / "log.csv"), "--driver", "columns", *columns)
    assert done.returncode == 0, done.stderr
    assert "3 committed" in done.stdout
    assert "3 points read from CSV, 2 skipped" in done.stdout
    assert "1 time not readable (first: line 5: 'noon')" in done.stdout
    assert "1 position outside the globe" in done.stdout
    assert "7,168 days early, a GPS week rollover" in done.stdout
    with owner_connection(stack.database_admin_url) as conn:
        speeds = conn.execute(
            "SELECT speed_mps FROM fix_history WHERE driver_id = 'columns' ORDER BY fix_at"
        ).fetchall()
    assert [speed for (speed,) in speeds] == [10.0] * 3


def test_replay__longer_than_the_window__warns_and_reports_every_fix(
    stack: Stack, tmp_path: Path
) -> None:
    rows = [f"{1_700_000_000 + hour * 3600},43.77,11.25" for hour in range(0, 40, 2)]
    (tmp_path / "long.csv").write_text("\n".join(["time,lat,lon", *rows]))
    arguments = ("--driver", "longhaul", "--speedup", "40000")
    done = run(stack, "replay", str(tmp_path / "long.csv"), *arguments)
    assert "7 of them will be dated more than 24 h before" in done.stderr
    assert "13 committed" in done.stdout
    assert "7 rejected" in done.stdout
    ledger = account(stack, "longhaul")
    assert ledger.agrees
    assert (ledger.committed, ledger.rejected) == (13, 7)


@pytest.mark.parametrize(
    ("arguments", "status", "outcome"),
    [
        (("--lat", "43.77", "--lon", "11.25"), 0, "committed"),
        (("--lat", "0", "--lon", "0"), 0, "quarantined"),
        (("--lat", "91", "--lon", "11.25"), 1, "latitude_out_of_range"),
        (("--lat", "43", "--lon", "11", "--at", "2020-01-01T00:00:00Z"), 1, "rejected"),
    ],
)
def test_send__one_fix__reports_its_outcome(
    stack: Stack, arguments: tuple[str, ...], status: int, outcome: str
) -> None:
    done = run(stack, "send", "--driver", "bruno", *arguments)
    assert done.returncode == status, done.stderr
    assert outcome in done.stdout


def test_replay__not_a_track__is_one_error_line(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    done = run(stack, "replay", str(tmp_path / "no.csv"), "--driver", "anna")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("replay: ")
    assert "Traceback" not in done.stderr


def test_device__broker_stopped__stores_and_forwards(stack: Stack) -> None:
    stack.add_drivers(["carla"])
    stack.stop_process("mosquitto-1")
    environment = stack.client_environment() | PATIENT
    with subprocess.Popen(
        [sys.executable, "-m", "device", "--driver", "carla"],
        env=environment,
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as device:
        assert device.stdin is not None
        for number in range(500):
            line = {"lat_deg": 43.77 + number * 1e-5, "lon_deg": 11.25}
            device.stdin.write(json.dumps(line) + "\n")
        device.stdin.write("not a fix\n")
        device.stdin.flush()
        time.sleep(3)
        stack.start_process("mosquitto-1")
        said, _ = device.communicate(timeout=60)
    assert "up to seq 500, 0 not committed yet, 1 lines not usable" in said
    ledger = account(stack, "carla")
    assert ledger.agrees
    assert ledger.committed == 500


def test_kafka_stopped__patch_commits_and_devices_catch_up(stack: Stack) -> None:
    stack.add_drivers(["dario"])
    stack.stop_process("kafka")
    token = driver_token(stack.paths.fleet_key(), "dario")
    try:
        waiting = subprocess.Popen(
            [sys.executable, "-m", "device", "--driver", "dario"],
            env=stack.client_environment() | PATIENT,
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert waiting.stdin is not None
        for _ in range(50):
            waiting.stdin.write('{"lat_deg": 43.77, "lon_deg": 11.25}\n')
        waiting.stdin.close()
        waiting.stdin = None
        body = {"fix_at": round(time.time() * 1000), "lat_deg": 43.78, "lon_deg": 11.26}
        request = urllib.request.Request(
            f"{stack.addresses.driver_api_url}/drivers/dario/location",
            data=json.dumps(body).encode(),
            method="PATCH",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status == 200
            assert json.load(answer)["outcome"] == "committed"
        journal = stack.paths.journals / "device-dario.sqlite"

        def journalled() -> list[tuple[int, int]]:
            try:
                boots = read_published(journal)
            except sqlite3.OperationalError:
                return []  # not created yet
            return [(boot.last_seq, boot.pending) for boot in boots]

        wait_until(lambda: journalled() == [(50, 50)], 60, "50 fixes in the journal")
    finally:
        stack.start_process("kafka")
    said, _ = waiting.communicate(timeout=120)
    assert "up to seq 50, 0 not committed yet" in said
    assert account(stack, "dario").committed == 50
    stack.wait_ready()

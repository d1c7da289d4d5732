"""A stack with TLS: its certificate renewed under load, and its reverse proxy killed."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from pathlib import Path

from doorstep.settings import Bind
from ops.servers.waiting import wait_until
from ops.stack import caddy
from ops.stack.addresses import reach
from ops.stack.certificates import CertificateAuthority
from ops.stack.errors import StackError
from ops.stack.settings import StackSettings
from tests.faults.environment import FaultEnvironment
from tests.faults.fault import Fault, Outcome
from tests.faults.fault_stack import FaultStack
from tests.faults.viewer_pool import ViewerPool
from tests.faults.viewers import ALL_SEE_WITHIN_S, orders_under_way

VIEWERS = 100
NEW_WITHIN_S = 30.0
AFTER_S = 20.0  # several fixes, acks and frames of every session
RESUMED_WITHIN_S = 5.0
ESTABLISHED = "01"  # in /proc/net/tcp


def missing() -> str:
    """Return why a stack with TLS cannot run here; empty if it can."""
    try:
        caddy.find_program(StackSettings())
    except StackError as exc:
        return str(exc)
    return ""


class TlsEnvironment(FaultEnvironment):
    """A stack with TLS under load: the devices connect with it."""

    def make_stack(self, settings: StackSettings, environment: Mapping[str, str]) -> FaultStack:
        with_tls = settings.model_copy(update={"doorstep_tls": True})
        return FaultStack(with_tls, environment, two_kafkas=False)

    @property
    def https(self) -> Bind:
        """The address of the reverse proxy."""
        assert self.addresses.https is not None
        return reach(self.addresses.https)

    @property
    def authority(self) -> Path:
        """The certificate that clients trust."""
        return CertificateAuthority(self.stack.paths.tls).certificate

    def certificates(self) -> tuple[str, str]:
        """Return the certificates that the broker and the reverse proxy present."""
        broker, proxy = (
            ssl.get_server_certificate((at.host, at.port), ca_certs=str(self.authority))
            for at in (reach(self.addresses.mqtt_tls[0]), self.https)
        )
        return broker, proxy

    def viewers(self, orders: list[str]) -> ViewerPool:
        """Return viewers who connect through the reverse proxy."""
        return ViewerPool(
            self.https.port,
            orders,
            self.stack.paths.staff_token(),
            VIEWERS,
            tls=ssl.create_default_context(cafile=str(self.authority)),
        )


def certificate_renewed(env: FaultEnvironment) -> Outcome:
    """Renew the certificate of the broker and the reverse proxy under load."""
    assert isinstance(env, TlsEnvironment)
    port = env.addresses.mqtt_tls[0].port
    with orders_under_way(env) as orders, env.viewers(orders) as pool:
        pool.wait(lambda one: one.is_watching, ALL_SEE_WITHIN_S, "all are watching")
        sessions, old = connections_to(port), env.certificates()
        lost = sum(len(one.lost_at) for one in pool.viewers)
        began = time.monotonic()
        env.stack.renew_certificate()
        wait_until(lambda: not set(env.certificates()) & set(old), NEW_WITHIN_S, "new certificates")
        renewed_s = time.monotonic() - began
        time.sleep(AFTER_S)
        dropped = len(sessions - connections_to(port))
        lost = sum(len(one.lost_at) for one in pool.viewers) - lost
        silent = sum(not any(at > began + renewed_s for at, _ in one.lags) for one in pool.viewers)
        recovery_s = env.wait_healthy()
    return Outcome(
        f"both present the new certificate after {renewed_s:.1f} s; of {len(sessions)} MQTT "
        f"sessions {dropped} dropped, of {VIEWERS} streams {lost} ended and {silent} fell silent",
        recovery_s,
        len(sessions) >= len(env.load.driver_ids) and not (dropped or lost or silent),
    )


def proxy_killed(env: FaultEnvironment) -> Outcome:
    """Kill -9 the reverse proxy with viewers behind it."""
    assert isinstance(env, TlsEnvironment)
    port = env.addresses.mqtt_tls[0].port
    with orders_under_way(env) as orders, env.viewers(orders) as pool:
        pool.wait(lambda one: one.is_watching, ALL_SEE_WITHIN_S, "all are watching")
        sessions = connections_to(port)
        killed_at = env.kill("caddy")
        pool.wait(
            lambda one: one.is_watching and one.first_frame_at > killed_at,
            ALL_SEE_WITHIN_S,
            "all have reconnected",
        )
        back = [one.first_frame_at - killed_at for one in pool.viewers]
        dropped = len(sessions - connections_to(port))
        recovery_s = env.wait_healthy(since=killed_at)
    return Outcome(
        f"{VIEWERS} streams resumed after {min(back):.1f} to {max(back):.1f} s; {dropped} of "
        f"{len(sessions)} MQTT sessions dropped",
        recovery_s,
        max(back) <= RESUMED_WITHIN_S and not dropped,
    )


def connections_to(port: int) -> set[str]:
    """Return the local address of each connection of this machine to a port."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    return {
        local
        for _, local, remote, state, *_ in fields
        if state == ESTABLISHED and remote.endswith(f":{port:04X}")
    }


FAULTS = (
    Fault(
        34,
        "the certificate renewed under load (--tls)",
        "no MQTT session and no stream ends, new ones get the new certificate",
        None,
        quick=False,
        run=certificate_renewed,
        environment="tls",
        not_here=missing(),
    ),
    Fault(
        35,
        "kill -9 the reverse proxy (--tls)",
        f"every stream resumes <= {RESUMED_WITHIN_S:g} s",
        None,
        quick=False,
        run=proxy_killed,
        environment="tls",
        not_here=missing(),
    ),
)

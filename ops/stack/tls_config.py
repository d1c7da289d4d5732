"""Which certificate a stack with TLS uses."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from doorstep.settings import is_loopback
from ops.stack.addresses import WILDCARDS
from ops.stack.certificates import server_names
from ops.stack.errors import StackError
from ops.stack.private_file import replace_file
from ops.stack.settings import StackSettings


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The source of the certificate: given files, or the stack's own authority.

    With `domain`, Caddy obtains its certificate by ACME. Mosquitto uses the other source.
    """

    names: tuple[str, ...]
    certificate_file: str | None = None
    key_file: str | None = None
    domain: str | None = None

    @classmethod
    def of(cls, settings: StackSettings) -> Self:
        """Read the settings. Raises StackError if only one of two files is given."""
        files = (settings.tls_cert_file, settings.tls_key_file)
        if (files[0] is None) != (files[1] is None):
            raise StackError("TLS_CERT_FILE and TLS_KEY_FILE belong together: set both")
        bind = settings.doorstep_bind
        own = bind if not is_loopback(bind) and bind not in WILDCARDS else None
        extra = ",".join(filter(None, (settings.doorstep_domain, settings.doorstep_tls_names, own)))
        certificate, key = (str(file.absolute()) if file else None for file in files)
        return cls(server_names(extra), certificate, key, settings.doorstep_domain)

    @property
    def public_host(self) -> str:
        """The host in customers' links: the domain, or the first of the names."""
        return self.domain or (f"[{self.names[0]}]" if ":" in self.names[0] else self.names[0])

    @property
    def has_own_authority(self) -> bool:
        """Whether clients need the stack's own authority."""
        return self.certificate_file is None

    def save(self, path: Path) -> None:
        """Write to a file, for the supervisor guard and later commands."""
        replace_file(path, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a saved configuration. Raises StackError."""
        try:
            named = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**named, "names": tuple(named["names"])})
        except (OSError, ValueError, KeyError, TypeError) as exc:
            raise StackError(f"cannot read {path}: {exc}") from exc

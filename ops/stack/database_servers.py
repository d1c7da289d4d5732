"""The database servers of a stack: one, or with --ha two, and their backups."""

from __future__ import annotations

from abc import abstractmethod

from ops.stack import monitoring
from ops.stack.addresses import DATABASE_NODES
from ops.stack.backup_repository import Backup, BackupKind, BackupRepository
from ops.stack.errors import StackError
from ops.stack.postgres import PostgresCluster
from ops.stack.processes import BACKUP_WORKER, backup_specs, postgres_cluster
from ops.stack.replicas import patroni
from ops.stack.replicas.specs import database_nodes, prepare_replicated_database
from ops.stack.settings import StackSettings
from ops.stack.setup import set_up_repository, wait_until_archiving
from ops.stack.stack_part import StackPart
from ops.stack.supervisor import Supervisor


class DatabaseServers(StackPart):
    """Describes the servers, finds the primary, and sets their backups up."""

    settings: StackSettings
    supervisor: Supervisor

    @property
    @abstractmethod
    def has_replicas(self) -> bool:
        """Whether the stack, or its data if it is not up, is one with --ha."""

    def prepare_databases(self) -> None:
        """Prepare the servers' folders and configurations. Idempotent. Raises StackError."""
        if self.addresses.has_replicas:
            nodes = self.database_nodes()
            prepare_replicated_database(self.paths, self.addresses, nodes, self._echo)
        else:
            self.cluster().prepare()

    def reload_databases(self) -> None:
        """Write the configurations of replicated database servers, and let them read these."""
        self.prepare_databases()
        for number, _ in enumerate(self.addresses.databases, start=1):
            self.supervisor.signal(patroni.member_name(number), "database", "HUP")

    def database_nodes(self) -> list[PostgresCluster]:
        """Describe each database server: one, or with --ha two."""
        if self.addresses.has_replicas:
            configs = [one.postgres_config() for one in self.repositories()]
            return database_nodes(self.paths, self.addresses, configs)
        return [self.cluster()]

    def primary(self) -> int:
        """Return the place of the primary in `database_nodes`. Raises StackError without one."""
        return patroni.find_primary(self.addresses.patroni) if self.has_replicas else 0

    def cluster(self) -> PostgresCluster:
        """Describe the database server, with the present password of its superuser.

        With --ha its URLs lead to the primary, and its folder is that of the first server.
        """
        if self.addresses.has_replicas:
            return self.database_nodes()[0]
        return postgres_cluster(
            self.paths,
            self.addresses,
            self.paths.postgres.resolve() / "data",
            self.backups().postgres_config(),
        )

    def backups(self) -> BackupRepository:
        """Return the repository of the database's backups, as its first server uses it."""
        return self.repositories()[0]

    def repositories(self) -> list[BackupRepository]:
        """Return the repository of backups, as each of `database_nodes` uses it."""
        servers = range(1, DATABASE_NODES + 1) if self.has_replicas else (0,)
        return [BackupRepository.of(self.paths, self.settings, one) for one in servers]

    def back_up(self, kind: BackupKind) -> Backup:
        """Back the database up, from its primary. Raises StackError."""
        primary = self.primary()
        return self.repositories()[primary].back_up(self.database_nodes()[primary], kind)

    def set_up_backups(self) -> None:
        """Archive the running database's WAL from now on. Idempotent. Raises StackError."""
        repository, present = self.backups(), self.paths.backup_dir()
        if BACKUP_WORKER in self.supervisor.running() and present not in (None, repository.folder):
            raise StackError(
                f"backups go to {present}: ./run down, then BACKUP_DIR={repository.folder} ./run up"
            )
        nodes, primary = self.database_nodes(), self.primary()
        is_new = set_up_repository(self.paths, nodes, self.repositories(), primary, self._echo)
        if self.has_replicas:
            self.reload_databases()
            archiving = self.repositories()[self.primary()].postgres_config()
            wait_until_archiving(self.cluster(), archiving["archive_command"])
        elif is_new:
            self.cluster().configure(repository.postgres_config())
        specs = backup_specs(self.paths, self.addresses, self.settings, repository)
        self.supervisor.ensure_running(specs)
        monitoring.write_targets(self.paths, self.addresses, backups=True)

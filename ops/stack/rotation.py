"""Replaces the passwords of a running stack's services, while devices publish.

Every step is a restart that services and devices survive: devices keep their fixes until they are
committed, and brokers their sessions and queues. `./run down` and `./run up`, which apply the
passwords in the files, complete an interrupted rotation.
"""

from __future__ import annotations

from doorstep.password_file import add_entries
from ops.console import Echo
from ops.stack import monitoring
from ops.stack.errors import StackError
from ops.stack.paths import new_password
from ops.stack.setup import set_up_database, set_up_kafka
from ops.stack.stack import Stack
from ops.stack.supervisor import replace_in_config


def rotate_secrets(stack: Stack, echo: Echo) -> None:
    """Replace the passwords of database roles, Kafka's principals and the services at the brokers,
    and the token between services.

    Not the fleet key, devices' secrets or staff tokens. Raises StackError.
    """
    if not stack.is_up():
        raise StackError("the stack is not up: ./run up")
    paths, supervisor = stack.paths, stack.supervisor
    brokers = [f"mosquitto-{number}" for number, _ in enumerate(stack.addresses.mqtt, start=1)]
    with stack.locked():
        # 1. The files, from which all else follows.
        replace_in_config(paths, paths.replace_service_secrets())
        supervisor.read_config()
        # 2. The servers, while no service tries the old passwords.
        echo("stopping the services")
        supervisor.stop_group("services")
        try:
            set_up_kafka(paths, stack.addresses, stack.copies)
            set_up_database(paths, stack.cluster(), stack.owner_environment())
            monitoring.set_up(paths, stack.addresses, stack.cluster())
            # A restart: after a reload with another password of a service, Mosquitto 2.0.11
            # disconnected driver_events every second and crashed ("invalid pointer").
            for broker in brokers:
                stack.stop_process(broker)
            add_entries(paths.password_file, paths.mqtt_passwords())
            for broker in brokers:
                stack.start_process(broker)
        finally:
            supervisor.replace_group("services")
            if stack.addresses.prometheus is not None:
                supervisor.stop_group("monitoring")
                supervisor.replace_group("monitoring")
        echo("the services start with new passwords")
        # 3. The administrators, whom services do not need.
        password = new_password()
        stack.cluster().replace_password(password, lambda: paths.store_superuser_password(password))
        paths.replace_kafka_admin_password()
        stack.prepare_kafka()
        if stack.addresses.has_replicas:
            stack.reload_databases()
        # All nodes at once: they authenticate to each other with this password.
        nodes = [f"kafka-{one}" for one, _ in enumerate(stack.addresses.kafkas, start=1)]
        for node in nodes or ["kafka"]:
            stack.stop_process(node)
        for node in nodes or ["kafka"]:
            stack.start_process(node)
    stack.wait_ready()

"""Phone apps of a stack's drivers: their credentials, and where they send to."""

from __future__ import annotations

from datetime import datetime

from doorstep.credentials import (
    PhoneSecret,
    new_invitation_token,
    phone_token,
    phone_username,
)
from doorstep.phones.links import Phone
from doorstep.provision import owner_connection
from doorstep.store.invitations import invite_driver
from doorstep.store.phones import issue_phone, read_phone, revoke_phone
from ops.console import operator
from ops.stack.errors import StackError
from ops.stack.phone_addresses import phone_addresses
from ops.stack.stack import Stack


def give_phone(stack: Stack, driver_id: str, *, again: bool = False) -> Phone:
    """Give a driver's phone a credential, and wait until every broker accepts it.

    One that exists stays, unless `again`: then it ends. Raises UnknownDriver, and StackError if
    the secret of the one that exists is not known here.
    """
    key = stack.paths.fleet_key()
    with owner_connection(stack.database_admin_url) as conn:
        secret = PhoneSecret.draw() if again else None
        issued = issue_phone(conn, key, driver_id, operator(), secret=secret)
    if secret is None and not issued.is_derived:
        raise StackError(
            f"the token of {driver_id}'s phone was shown once: ./run drivers new-phone {driver_id}"
        )
    token = secret.token if secret else phone_token(key, driver_id, issued.generation)
    stack.wait_for_logins(phone_username(driver_id), token, accepted=True)
    return phone_of(stack, driver_id, token)


def end_phone(stack: Stack, driver_id: str) -> None:
    """End the credential of a driver's phone. Raises UnknownDriver."""
    with owner_connection(stack.database_admin_url) as conn:
        revoke_phone(conn, driver_id, operator())
        phone = read_phone(conn, driver_id)
    if phone.is_derived:  # else there is nothing to log in with
        token = phone_token(stack.paths.fleet_key(), driver_id, phone.generation)
        stack.wait_for_logins(phone_username(driver_id), token, accepted=False)


def phone_of(stack: Stack, driver_id: str, token: str) -> Phone:
    """Return where a driver's phone sends to."""
    found = phone_addresses(stack.paths, stack.addresses, stack.public_url)
    return Phone.at(driver_id, token, found.http_url, found.brokers)


def invite(stack: Stack, driver_id: str) -> tuple[str, datetime]:
    """Make an invitation; return its link and when it expires. Raises UnknownDriver."""
    token = new_invitation_token()
    with owner_connection(stack.database_admin_url) as conn:
        expires_at = invite_driver(conn, driver_id, token, operator())
    join_url = phone_addresses(stack.paths, stack.addresses, stack.public_url).join_url
    return f"{join_url}#{token}", expires_at

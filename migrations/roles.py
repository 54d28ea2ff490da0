"""Roles of the database: the two that sessions act as, and the user that the API and the workers log in as.

`scorehouse_tenant` is under row-level security. `scorehouse_system` is not, because Postgres has no COPY under it, and
workers write their results by COPY. Nobody logs in as either: a session takes one of them on (`db.engine`).
"""

from __future__ import annotations

import psycopg2.extensions
import sqlalchemy as sa
from sqlalchemy import URL, Connection
from sqlalchemy.exc import ProgrammingError

from db.engine import SYSTEM_ROLE, TENANT_ROLE, cursor_of
from errors import ScorehouseError

_MAKE = {TENANT_ROLE: "NOLOGIN", SYSTEM_ROLE: "NOLOGIN BYPASSRLS"}
_NOT_ALLOWED = "42501"


def ensure_roles(connection: Connection) -> None:
    """Make the two roles unless they exist; a server has them once, for all its databases.

    Raises:
        ScorehouseError: this user may not make roles; the message has the statements for somebody who may.
    """
    for role, options in _MAKE.items():
        if not _exists(connection, role):
            _execute(connection, f"CREATE ROLE {role} {options}")
    # It reaches the temporary tables that the other has made.
    _grant(connection, TENANT_ROLE, SYSTEM_ROLE, "")
    ensure_member(connection, _user(connection))


def ensure_login(connection: Connection, login: URL) -> None:
    """Make the user of a URL, with its password, unless it exists, and let it take on the two roles.

    Raises:
        ScorehouseError: as `ensure_roles`.
    """
    user = login.username
    if user is None or user == _user(connection):
        return  # who owns the tables works on them too
    if not _exists(connection, user):
        _execute(connection, f"CREATE ROLE {_quoted(connection, user)} LOGIN{_password(connection, login)}")
    ensure_member(connection, user)


def ensure_member(connection: Connection, user: str) -> None:
    """Let a user act as either role, without having the rights of any before it does."""
    for role in (TENANT_ROLE, SYSTEM_ROLE):
        _grant(connection, role, user, " WITH INHERIT FALSE, SET TRUE")


def _grant(connection: Connection, role: str, user: str, options: str) -> None:
    known = connection.execute(
        sa.text(
            "SELECT EXISTS (SELECT FROM pg_auth_members WHERE roleid = CAST(:role AS regrole) "
            "AND member = (SELECT oid FROM pg_roles WHERE rolname = :user) AND set_option)"
        ),
        {"role": role, "user": user},
    ).scalar_one()
    if not known:
        _execute(connection, f"GRANT {role} TO {_quoted(connection, user)}{options}")


def _execute(connection: Connection, statement: str) -> None:
    try:
        connection.exec_driver_sql(statement)
    except ProgrammingError as exc:
        if getattr(exc.orig, "pgcode", None) != _NOT_ALLOWED:
            raise
        user = _user_after_error(connection)
        lines = [
            *(f"CREATE ROLE {role} {options};" for role, options in _MAKE.items()),
            f"GRANT {TENANT_ROLE} TO {SYSTEM_ROLE};",
            f"GRANT {TENANT_ROLE}, {SYSTEM_ROLE} TO {user} WITH ADMIN TRUE, INHERIT FALSE, SET TRUE;",
        ]
        raise ScorehouseError(
            f"the user {user} may not make or grant roles. Have an administrator of the server run this once, and "
            "migrate again:\n  " + "\n  ".join(lines)
        ) from exc


def _exists(connection: Connection, role: str) -> bool:
    return bool(
        connection.execute(
            sa.text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)"), {"role": role}
        ).scalar_one()
    )


def _user(connection: Connection) -> str:
    return str(connection.execute(sa.text("SELECT session_user")).scalar_one())


def _user_after_error(connection: Connection) -> str:
    """Of a session whose transaction has failed, and takes no statement any more."""
    return str(connection.engine.url.username)


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name).replace("%", "%%")


def _password(connection: Connection, login: URL) -> str:
    """As its SCRAM verifier: the statement may stand in the server's log."""
    if login.password is None:
        return ""
    with cursor_of(connection) as cursor:
        verifier = psycopg2.extensions.encrypt_password(
            str(login.password), str(login.username), scope=cursor, algorithm="scram-sha-256"
        )
    return f" PASSWORD '{verifier}'"

"""The [alarms] table: what is a stall, and who is told.

A secret is named by its environment variable, never written.
"""

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from spheroidd.daemon.config.table import Section
from spheroidd.protocols.errors import ConfigError

_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_MAILBOX = r"^[^@\s,;<>]+@[^@\s,;<>]+$"
Variable = Annotated[str, Field(pattern=_VARIABLE)]
Mailbox = Annotated[str, Field(pattern=_MAILBOX)]


class WebhookConfig(Section):
    """[alarms.webhook]: a program that is told over HTTP."""

    url: str | None = Field(default=None, pattern=r"^https?://\S+$", description="where notices are posted as JSON")
    url_env: Variable | None = Field(
        default=None, description="the environment variable that holds the URL, where the URL itself is the secret"
    )
    token_env: Variable | None = Field(
        default=None, description="the environment variable of a token, sent as Authorization: Bearer"
    )
    secret_env: Variable | None = Field(
        default=None,
        description="the environment variable of a key; it signs the body (X-Spheroidd-Signature)",
    )
    timeout_s: float = Field(default=10.0, gt=0, le=120)

    @model_validator(mode="after")
    def _one_address(self) -> "WebhookConfig":
        if (self.url is None) == (self.url_env is None):
            raise ValueError("a webhook has one address; write url, or url_env where the address is a secret")
        if self.url and "@" in urlsplit(self.url).netloc:
            raise ValueError("the URL holds a password; leave it out and use token_env")
        return self


class EmailConfig(Section):
    """[alarms.email]: people who are told by mail."""

    host: str = Field(min_length=1, description="the SMTP server")
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["starttls", "tls", "none"] = Field(default="starttls", description="none: only on this network")
    user: str | None = Field(default=None, description="who logs in; without it nobody does")
    password_env: Variable | None = Field(default=None, description="the environment variable of the password")
    sender: Mailbox
    to: tuple[Mailbox, ...] = Field(min_length=1)
    timeout_s: float = Field(default=20.0, gt=0, le=120)

    @model_validator(mode="after")
    def _whole_login(self) -> "EmailConfig":
        if (self.user is None) != (self.password_env is None):
            raise ValueError("user and password_env belong together; write both or neither")
        if self.user is not None and self.security == "none":
            raise ValueError('a password would cross the network in the clear; write security = "starttls" or "tls"')
        return self


class AlarmsConfig(Section):
    """[alarms]: when somebody must look, and who is told of it."""

    stall_s: float = Field(default=60.0, gt=0, description="without a slice for so long, a stack has stalled")
    between_s: float = Field(
        default=900.0, gt=0, description="between two stacks: without a slice for so long, the plate has stalled"
    )
    webhook: WebhookConfig | None = None
    email: EmailConfig | None = None


def secret(variable: str | None, key: str) -> str | None:
    """What an environment variable holds; None where none is named. ConfigError where it is not set."""
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        do = f"set {variable} for the daemon (EnvironmentFile= of its service), or take the key out"
        raise ConfigError(f"the environment variable {variable} is not set", where=f"alarms.{key}", do=do)
    if not value.isprintable():
        raise ConfigError(f"{variable} holds more than one line", where=f"alarms.{key}", do="set one line of text")
    return value

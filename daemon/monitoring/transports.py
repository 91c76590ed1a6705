"""How one notice reaches its receiver: a POST, or a mail. Each call returns once it was accepted, or raises."""

import hashlib
import hmac
import json
import smtplib
import ssl
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from http.client import HTTPException, HTTPMessage
from importlib.metadata import version
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit

from spheroidd.daemon.catalog.audit_chain import utc
from spheroidd.daemon.config.alarm_settings import EmailConfig, WebhookConfig, secret
from spheroidd.daemon.monitoring.notifications import FINISHED, Notification

Deliver = Callable[[Notification], None]
REFUSALS = (OSError, HTTPException, smtplib.SMTPException, ValueError)  # what a delivery may fail with


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would follow with a GET, and the notice would be lost on the way."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        raise HTTPError(req.full_url, code, "it redirects; write the address it leads to", headers, fp)


def webhook(settings: WebhookConfig, data_dir: Path) -> Deliver:
    """POST each notice as JSON; the id stands in Idempotency-Key as well. ConfigError for a secret that is not set.

    With `secret_env` the body's HMAC-SHA256 stands in X-Spheroidd-Signature ("sha256=" and hexadecimal digits).
    """
    url = settings.url or secret(settings.url_env, "webhook.url_env") or ""
    token, key = secret(settings.token_env, "webhook.token_env"), secret(settings.secret_env, "webhook.secret_env")
    opener = urllib.request.build_opener(_NoRedirect)

    def deliver(notice: Notification) -> None:
        body = json.dumps(notice.payload(data_dir), allow_nan=False).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": notice.id}
        headers["User-Agent"] = f"spheroidd/{version('spheroidd')}"
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if key:
            signature = hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
            headers["X-Spheroidd-Signature"] = f"sha256={signature}"
        request = urllib.request.Request(url, body, headers, method="POST")
        try:
            opener.open(request, timeout=settings.timeout_s).close()  # anything but 2xx raises
        except HTTPError as error:
            error.close()
            raise

    return deliver


def email(settings: EmailConfig, data_dir: Path) -> Deliver:
    """Mail each notice; its id is the Message-ID's, so that a second copy is known as one. ConfigError as above."""
    password = secret(settings.password_env, "email.password_env")

    def deliver(notice: Notification) -> None:
        tls = ssl.create_default_context()
        if settings.security == "tls":
            link: smtplib.SMTP = smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout_s, context=tls)
        else:
            link = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout_s)
        with link:
            if settings.security == "starttls":
                link.starttls(context=tls)
            if settings.user and password:
                link.login(settings.user, password)
            link.send_message(_mail(notice, settings, data_dir))

    return deliver


def _mail(notice: Notification, settings: EmailConfig, data_dir: Path) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = settings.sender, ", ".join(settings.to), notice.subject()[:200]
    mail["Date"] = format_datetime(datetime.fromtimestamp(notice.at_s, UTC))
    mail["Message-ID"] = f"<{notice.id}@spheroidd>"
    mail["Auto-Submitted"] = "auto-generated"
    told = notice.payload(data_dir)
    lines = [notice.subject(), ""]
    if notice.event == "raised" and notice.do:
        lines += [f"To do: {notice.do}", ""]
    over = {"ended": ", over", FINISHED: ", finished"}.get(notice.event)
    lines += [f"since {utc(notice.raised_s)}" + (f"{over} {utc(notice.at_s)}" if over else "")]
    lines += [f"{told['host']}: {told['data_dir']}", f"{notice.code}, {notice.id}"]
    mail.set_content("\n".join(lines))
    return mail


def address(settings: WebhookConfig | EmailConfig) -> str:
    """Where a receiver is, without anything that could be a secret."""
    if isinstance(settings, EmailConfig):
        return f"{settings.host}:{settings.port}"
    return f"the URL in {settings.url_env}" if settings.url is None else _host(settings.url)


def _host(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def why(error: Exception) -> str:
    """What a delivery failed with, in a few words, and without the address, which may be a secret."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.msg}"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"SMTP {error.smtp_code}"
    reason = getattr(error, "reason", error)
    return " ".join(f"{getattr(reason, 'strerror', None) or type(reason).__name__}".split())

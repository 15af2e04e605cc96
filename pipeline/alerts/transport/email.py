"""Mail sender: messages as plain text and HTML with the chart, threaded by alert."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime

from pipeline.alerts.messages import text
from pipeline.alerts.messages.html import html_of
from pipeline.alerts.transport import ssrf
from pipeline.alerts.transport.base import DeliveryResult, DrawChart, Message, redacted
from pipeline.alerts.transport.http import tls
from pipeline.config.endpoints import EmailEndpoint


class EmailSender:
    """Sender of mail over SMTP, with a thread for each mail in flight because smtplib blocks.

    A code of 4xx or 5xx from the server is a failed attempt.
    """

    def __init__(self, endpoint: EmailEndpoint, picture: DrawChart) -> None:
        self._endpoint = endpoint
        self._picture = picture
        self._threads = ThreadPoolExecutor(endpoint.in_flight, thread_name_prefix="email")

    async def send(self, message: Message) -> DeliveryResult:
        timeout = self._endpoint.timeout.total_seconds()
        try:
            return await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(self._threads, self._send, message), timeout
            )
        except TimeoutError:
            return DeliveryResult(False, f"no complete answer within {timeout:g} s", unanswered=True)

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _send(self, message: Message) -> DeliveryResult:
        secrets: list[str] = []
        try:
            password = (
                self._endpoint.password.reveal().get_secret_value()
                if self._endpoint.password is not None
                else None
            )
            secrets = [password] if password is not None else []
            with self._connected() as server:
                if self._endpoint.user is not None and password is not None:
                    server.login(self._endpoint.user, password)
                refused = server.send_message(mail(self._endpoint, message, self._picture(message.payload)))
        except ssrf.ForbiddenAddress as error:
            return DeliveryResult(False, f"refused: {error}")
        except smtplib.SMTPResponseException as error:
            answer = (
                error.smtp_error.decode("utf-8", "replace")
                if isinstance(error.smtp_error, bytes)
                else str(error.smtp_error)
            )
            return DeliveryResult(False, redacted(answer, secrets), status=error.smtp_code)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            return DeliveryResult(False, redacted(f"{type(error).__name__}: {error}", secrets))
        if refused:
            return DeliveryResult(True, redacted(f"refused for {', '.join(refused)}", secrets), status=250)
        return DeliveryResult(True, "accepted", status=250)

    def _connected(self) -> smtplib.SMTP:
        endpoint = self._endpoint
        server = _FilteredSmtp(endpoint)
        server.connect(endpoint.host, endpoint.port)
        if endpoint.security == "starttls":
            # Without this check an attacker on the network could remove STARTTLS from the answer and read the
            # mail.
            server.ehlo_or_helo_if_needed()
            if not server.has_extn("starttls"):
                server.close()
                raise ValueError("the mail server does not offer STARTTLS; nothing was sent")
            server.starttls(context=tls(endpoint.ca))
        return server


class _FilteredSmtp(smtplib.SMTP):
    """SMTP connection behind the SSRF filter."""

    def __init__(self, endpoint: EmailEndpoint) -> None:
        super().__init__(timeout=endpoint.timeout.total_seconds(), local_hostname="forewatch")
        self._endpoint = endpoint

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket | ssl.SSLSocket:
        self._host = host  # the name that STARTTLS verifies
        plain = ssrf.connect_allowed(host, port, ssrf.allowed_networks(self._endpoint.allow), timeout)
        return (
            tls(self._endpoint.ca).wrap_socket(plain, server_hostname=host)
            if self._endpoint.security == "tls"
            else plain
        )


def mail(endpoint: EmailEndpoint, message: Message, picture: bytes | None) -> EmailMessage:
    """Return the mail of a message.

    Repetitions have the same Message-ID, and all mails of an alert are one thread.
    """
    alert = message.payload.data
    letter = EmailMessage()
    letter["Subject"] = text.clean(alert.title)
    letter["From"] = Address("forewatch", addr_spec=endpoint.sender)
    letter["To"] = ", ".join(endpoint.to)
    letter["Date"] = format_datetime(message.attempted)
    letter["Message-ID"] = f"<{message.delivery.hex}@forewatch>"
    letter["References"] = f"<{alert.alert_id}@forewatch>"
    letter["X-Forewatch-Event"] = message.payload.type
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(f"{alert.title}\n\n{text.body(alert)}\n")
    letter.add_alternative(
        html_of(alert, "cid:series@forewatch" if picture is not None else None), subtype="html"
    )
    if picture is not None:
        page = letter.get_payload()[1]  # type: ignore[index]
        assert isinstance(page, EmailMessage)
        page.add_related(
            picture, "image", "png", cid="<series@forewatch>", filename="series.png", disposition="inline"
        )
    return letter

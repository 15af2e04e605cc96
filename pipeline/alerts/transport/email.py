"""Mail sender: messages as plain text and HTML with the chart, threaded by alert."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable
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

#: A connection that was idle longer is not used again: servers close idle ones.
_IDLE_SECONDS = 30.0
#: Servers limit the mails of one connection, often to 100.
_MAX_MAILS_PER_CONNECTION = 50
_SERVICE_CLOSING = 421


class ChartAllowance:
    """Time that may be spent on charts: a fifth of the time, after a burst of five seconds.

    A chart takes about as long as ten mails without one, so in a flood of alerts most mails have none.
    """

    MAX_SECONDS = 5.0
    SHARE = 0.2

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._left = self.MAX_SECONDS
        self._at = monotonic()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Return whether a chart may be drawn now."""
        with self._lock:
            now = self._monotonic()
            self._left = min(self._left + self.SHARE * (now - self._at), self.MAX_SECONDS)
            self._at = now
            return self._left > 0.0

    def spend(self, seconds: float) -> None:
        """Record the time that a chart took."""
        with self._lock:
            self._left -= seconds


class EmailSender:
    """Sender of mail over SMTP, with a thread for each mail in flight because smtplib blocks.

    Connections are used again. A code of 4xx or 5xx from the server is a failed attempt.
    """

    def __init__(self, endpoint: EmailEndpoint, picture: DrawChart) -> None:
        self._endpoint = endpoint
        self._picture = picture
        self._charts = ChartAllowance()
        self._idle: list[_FilteredSmtp] = []  # append and pop of a list are atomic
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
        while self._idle:
            self._idle.pop().close()

    def _send(self, message: Message) -> DeliveryResult:
        secrets: list[str] = []
        try:
            password = (
                self._endpoint.password.reveal().get_secret_value()
                if self._endpoint.password is not None
                else None
            )
            secrets = [password] if password is not None else []
            letter = mail(self._endpoint, message, self._chart(message))
            refused = self._deliver(letter, password)
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

    def _chart(self, message: Message) -> bytes | None:
        if not self._charts.take():
            return None
        began = time.monotonic()
        try:
            return self._picture(message.payload)
        finally:
            self._charts.spend(time.monotonic() - began)

    def _deliver(self, letter: EmailMessage, password: str | None) -> dict[str, tuple[int, bytes]]:
        """Send a mail over an idle connection or a new one, and return the refused recipients."""
        server = self._take()
        if server is not None:
            try:
                return self._send_over(server, letter)
            except smtplib.SMTPResponseException as error:
                if error.smtp_code != _SERVICE_CLOSING:
                    raise
        server = self._connected()
        if self._endpoint.user is not None and password is not None:
            try:
                server.login(self._endpoint.user, password)
            except BaseException:
                server.close()
                raise
        return self._send_over(server, letter)

    def _send_over(self, server: _FilteredSmtp, letter: EmailMessage) -> dict[str, tuple[int, bytes]]:
        """Send a mail, and keep the connection unless it failed."""
        try:
            refused = server.send_message(letter)
        except BaseException:
            server.close()
            raise
        server.mails += 1
        server.idle_since = time.monotonic()
        if server.mails < _MAX_MAILS_PER_CONNECTION:
            self._idle.append(server)
        else:
            _quit(server)
        return refused

    def _take(self) -> _FilteredSmtp | None:
        """Return an idle connection that the server still answers on."""
        while self._idle:
            server = self._idle.pop()
            try:
                if time.monotonic() - server.idle_since < _IDLE_SECONDS and server.noop()[0] == 250:
                    return server
            except (smtplib.SMTPException, OSError):
                pass
            server.close()
        return None

    def connect(self) -> smtplib.SMTP:
        """Connect, with TLS as configured. Raises what the network and the server refuse."""
        return self._connected()

    def _connected(self) -> _FilteredSmtp:
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
        self.mails = 0
        self.idle_since = 0.0

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket | ssl.SSLSocket:
        self._host = host  # the name that STARTTLS verifies
        plain = ssrf.connect_allowed(
            host,
            port,
            ssrf.allowed_networks(self._endpoint.allow),
            timeout,
            encrypted=self._endpoint.security != "none",
        )
        return (
            tls(self._endpoint.ca).wrap_socket(plain, server_hostname=host)
            if self._endpoint.security == "tls"
            else plain
        )


def _quit(server: smtplib.SMTP) -> None:
    try:
        server.quit()
    except (smtplib.SMTPException, OSError):
        server.close()


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

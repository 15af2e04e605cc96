"""A mail server for tests: SMTP with STARTTLS (RFC 3207) and AUTH PLAIN/LOGIN, on a free port; keeps what
arrives.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from tests.support.loop_server import LoopServer


@dataclass
class Letter:
    """One mail as the server got it."""

    sender: str
    to: list[str]
    content: bytes
    secure: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        made = message_from_bytes(self.content, policy=policy.default)
        assert isinstance(made, EmailMessage)
        return made


class MailServer(LoopServer):
    """``hang_up_after``: mails of one connection, after which the server closes it without a word.

    ``starttls`` is its TLS context (None: it does not offer it); ``refuse`` the answer to DATA, for
    example ``452 4.2.2 full``.
    """

    def __init__(
        self,
        starttls: ssl.SSLContext | None = None,
        password: str | None = None,
        refuse: str | None = None,
        **address: Any,
    ) -> None:
        super().__init__(**address)
        self.letters: list[Letter] = []
        self.connections = 0
        self.hang_up_after: int | None = None
        self.refuse = refuse
        self._tls = starttls
        self._password = password

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(text: str) -> None:
            writer.write(text.encode() + b"\r\n")

        sender, to, secure, user = "", [], False, None
        self.connections += 1
        mails = 0
        say("220 test ESMTP")
        try:
            while line := (await reader.readline()).decode().strip():
                word = line.split(" ")[0].upper()
                if word == "EHLO":
                    say("250-test")
                    if self._tls is not None and not secure:
                        say("250-STARTTLS")
                    say("250-AUTH PLAIN LOGIN")
                    say("250 8BITMIME")
                elif word == "STARTTLS" and self._tls is not None:
                    say("220 go on")
                    await writer.drain()
                    await writer.start_tls(self._tls)
                    secure = True
                elif word == "AUTH":
                    _, name, given = base64.b64decode(line.split(" ")[2]).decode().split("\x00")
                    user = name if given == self._password else None
                    say("235 ok" if user else "535 5.7.8 authentication failed")
                elif word == "MAIL":
                    sender, to = line.partition("<")[2].partition(">")[0], []
                    say("250 ok")
                elif word == "RCPT":
                    to.append(line.partition("<")[2].partition(">")[0])
                    say("250 ok")
                elif word == "DATA":
                    say("354 go on")
                    content = await reader.readuntil(b"\r\n.\r\n")
                    if self.refuse is None:
                        self.letters.append(
                            Letter(sender, to, content[:-5].replace(b"\r\n..", b"\r\n."), secure, user)
                        )
                    say(self.refuse or "250 queued")
                    mails += 1
                    if mails == self.hang_up_after:
                        return
                elif word == "QUIT":
                    say("221 bye")
                    return
                else:
                    say("250 ok")
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

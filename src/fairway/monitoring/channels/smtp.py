"""Mail: plain text, one thread an incident, over STARTTLS or TLS unless told otherwise."""

from __future__ import annotations

import smtplib
import socket
import ssl
import threading
from collections.abc import Mapping
from email.message import EmailMessage
from email.utils import formatdate

from fairway.core.alert_settings import ChannelSettings
from fairway.core.errors import DeliveryFailed, SettingsError
from fairway.core.incident import Incident, Message
from fairway.monitoring.channels.connecting import connected
from fairway.monitoring.channels.reason import reason_of
from fairway.monitoring.channels.secret import Secret
from fairway.monitoring.notices import explanation, facts, headline, link, shortened
from fairway.monitoring.windows import printable

_PERMANENT = 500


class _Client(smtplib.SMTP):
    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return connected(host, port, timeout)


class _TlsClient(smtplib.SMTP_SSL):
    """Its socket is known before the handshake, so that one that never ends can be cut."""

    def _get_socket(self, host: str, port: int, timeout: float) -> ssl.SSLSocket:
        plain = connected(host, port, timeout)
        name: str = self._host  # type: ignore[attr-defined]
        self.sock = secured = self.context.wrap_socket(
            plain, server_hostname=name, do_handshake_on_connect=False
        )
        secured.do_handshake()
        return secured


class SmtpChannel:
    refresh_seconds = 0.0

    def __init__(
        self, settings: ChannelSettings, environ: Mapping[str, str], *, address: str, name: str = ""
    ) -> None:
        self.timeout_seconds = settings.timeout_seconds
        self.name = name
        self._settings = settings
        self._password = Secret(settings.password, environ)
        self._address = address

    def refresh(self, incidents: tuple[Incident, ...]) -> None:
        return

    def send(self, message: Message) -> str:
        settings = self._settings
        place = f"{settings.host}:{settings.port}"
        mail = self.mail(message)
        over = threading.Event()
        try:
            password = self._password.read() if self._password else ""
            context = ssl.create_default_context(cafile=settings.ca_file or None)
            client = (
                _TlsClient(timeout=settings.timeout_seconds, context=context)
                if settings.security == "tls"
                else _Client(timeout=settings.timeout_seconds)
            )
            # The name that the certificate must have: connect() alone does not keep it.
            client._host = settings.host  # type: ignore[union-attr]
            timer = threading.Timer(settings.timeout_seconds, _cut, (client, over))
            timer.daemon = True
            timer.start()
            try:
                client.connect(settings.host, settings.port)
                if over.is_set():
                    raise TimeoutError
                if settings.security == "starttls":
                    client.starttls(context=context)
                if settings.username:
                    client.login(settings.username, password)
                refused = client.send_message(mail)
                try:
                    client.quit()
                except (OSError, smtplib.SMTPException):
                    pass  # it has the mail
            finally:
                timer.cancel()
                client.close()
        except smtplib.SMTPAuthenticationError as error:
            raise DeliveryFailed(f"{place} refuses the name and password ({error.smtp_code}).") from error
        except smtplib.SMTPRecipientsRefused as error:
            codes = [code for code, _ in error.recipients.values()]
            raise DeliveryFailed(
                f"{place} takes mail for none of the recipients ({', '.join(map(str, sorted(set(codes))))}).",
                permanent=all(code >= _PERMANENT for code in codes),
            ) from error
        except smtplib.SMTPNotSupportedError as error:
            raise DeliveryFailed(
                f"{place} does not offer what is asked for: {error}",
                hint="Without STARTTLS nothing is sent; security = 'tls' or, in a network you trust, 'none'.",
            ) from error
        except smtplib.SMTPResponseException as error:
            text = error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else ""
            raise DeliveryFailed(
                f"{place} answered {error.smtp_code} {shortened(' '.join(text.split()), 200)}.",
                permanent=isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= _PERMANENT,
            ) from error
        except SettingsError as error:
            raise DeliveryFailed(str(error)) from error
        except (OSError, smtplib.SMTPException, ValueError) as error:
            if (
                over.is_set()
                or isinstance(error, TimeoutError)
                or isinstance(error.__context__, TimeoutError)
            ):
                text = f"{place} did not take the mail within {settings.timeout_seconds:g} s."
                raise DeliveryFailed(text) from error
            raise DeliveryFailed(f"{place} cannot be reached: {reason_of(error)}.") from error
        told = len(settings.recipients) - len(refused)
        return f"taken for {told} of {len(settings.recipients)} recipients"

    def mail(self, message: Message) -> EmailMessage:
        """`Message-ID` is the message's own, so that a mail that comes twice is known by it."""
        event, settings = message.event, self._settings
        mail = EmailMessage()
        mail["Subject"] = shortened(printable(headline(event)), 200)
        mail["From"] = settings.sender
        mail["To"] = ", ".join(settings.recipients)
        mail["Date"] = formatdate()
        mail["Message-ID"] = f"<{message.id}@fairway>"
        thread = f"<{event.incident.id}@fairway>"
        mail["In-Reply-To"] = thread
        mail["References"] = thread
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers from holidays
        lines = [headline(event), ""]
        lines += [f"- {text}" for text in explanation(event)]
        lines += ["", *(f"{name}: {value}" for name, value in facts(event))]
        address = link(message, self._address)
        lines += ["", address] if address else []
        mail.set_content("\n".join(lines) + "\n")
        return mail


def _cut(client: smtplib.SMTP, over: threading.Event) -> None:
    """Ends a talk that takes too long. The socket's own time-out begins anew with every byte."""
    over.set()
    talk = client.sock
    if talk is not None:
        try:
            # The plain socket's: that of TLS forgets its state, in which another thread may be.
            socket.socket.shutdown(talk, socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed already

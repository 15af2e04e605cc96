"""The demo: broker, simulated sources, daemon and terminal in one process.

worlds ─► feeder thread ─► broker (or the embedded log) ─► daemon (main thread) ─► SQLite ─► watcher thread ─►
terminal
                                                                                       └─► signed webhook ─►
                                                                                       receiver ─► terminal
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.api.server import dashboard_server
from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from pipeline.config.serve import ServeConfig
from pipeline.core.stop_signals import stop_on_signals
from pipeline.daemon.daemon import daemon
from pipeline.dashboard.browser import open_page
from pipeline.demo.feed import Feeder, Send
from pipeline.demo.model_reporter import ModelReporter
from pipeline.demo.setting import HISTORY_FOLDER, write_config
from pipeline.demo.simulate import WORLDS
from pipeline.demo.terminal import Keys, Watcher
from pipeline.demo.webhook_receiver import receiver
from pipeline.local_kafka.broker import LocalBroker
from pipeline.sources.memory import memory_log

Say = Callable[[str], None]

BROKER_PATIENCE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class DemoSummary:
    """Counts of a finished demo.

    ``webhooks`` had a valid signature, ``resolved`` of them closed an alert. ``rolled_back`` is true if the
    demo lasted long enough to show a training, a promotion and a rollback.
    """

    anomalies: int
    webhooks: int
    resolved: int
    rolled_back: bool


def run_demo(*, kafka: bool, seed: int, seconds: float | None, say: Say) -> DemoSummary:
    """Run until Ctrl-C, ``q``, or for ``seconds``.

    Args:
        kafka: Use a local Apache Kafka instead of an in-process log.
        seed: Seed of the simulated sources.
        seconds: Duration; None runs until Ctrl-C or ``q``.
        say: Function that prints a line.

    Raises:
        ForewatchError: The broker or the daemon cannot start.
    """
    # Before the daemon runs, a signal must unwind the stack, otherwise the broker would keep running.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="forewatch-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        brokers = stack.enter_context(_broker(folder, say)) if kafka else None
        hooks, address, secret = stack.enter_context(receiver(folder, say))
        path = write_config(folder, brokers, address, secret)
        send = stack.enter_context(_to_kafka(brokers, say) if brokers else _to_memory())
        feeder = Feeder([world(seed + i) for i, world in enumerate(WORLDS)], send, say)
        say("[demo] writing historical records, from which the detectors learn ordinary operation ...")
        feeder.write_history(folder / HISTORY_FOLDER)
        config = stack.enter_context(_with_dashboard(load_config(path), say))
        stopping = stop_on_signals()
        stack.enter_context(end_announced(stopping, say))
        running = stack.enter_context(daemon(config, stopping))
        watcher, story = Watcher(config, say), ModelReporter(config, say)
        feeder.has_model = story.has_model
        if seconds is not None:
            timer = threading.Timer(seconds, running.stop)
            timer.start()
            stack.callback(timer.cancel)
        stop = threading.Event()
        works = (watcher.run, story.run, Keys(feeder.inject, running.stop).run)
        threads = [threading.Thread(target=work, args=(stop,)) for work in works]
        threads.append(threading.Thread(target=feeder.run, args=(stopping,)))
        _announce(say, address, path)
        try:
            for thread in threads:
                thread.start()
            running.run(lambda: None)
        finally:
            stopping.set()
            stop.set()
            for thread in threads:
                thread.join()
    return DemoSummary(watcher.shown, hooks.arrived, hooks.resolved, story.rolled_back)


def _announce(say: Say, address: str, path: Path) -> None:
    say(f"[demo] alerts are sent as signed webhooks to {address}; this process receives and prints them")
    command = command_path(sys.argv[0])
    say(
        f"[demo] running; press i to inject a fault, q to quit; in another terminal: "
        f"{command} anomalies list -c {path}"
    )
    if (activate := Path(command).with_name("activate")).is_file():
        say(f"[demo] messages name commands by forewatch alone; this makes it known: source {activate}")


@contextmanager
def end_announced(stopping: threading.Event, say: Say) -> Iterator[None]:
    """Answer a signal at once: the batch in hand, the trainings and the broker need some seconds to end."""

    def answer() -> None:
        stopping.wait()
        say("[demo] stopping ...")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def command_path(program: str) -> str:
    """Return what starts forewatch in another terminal: its name, or its path where the name is not found."""
    path = Path(program).absolute()
    return "forewatch" if shutil.which("forewatch") or not path.is_file() else str(path)


@contextmanager
def _with_dashboard(config: Config, say: Say) -> Iterator[Config]:
    """Yield the config while its dashboard is served and shown."""
    with dashboard_server(config, port=0) as pages:
        say(f"[demo] the dashboard is at {pages.url}")
        open_page(pages.url)
        yield config.model_copy(update={"serve": ServeConfig(daemon=False, url=pages.url)})


@contextmanager
def _broker(folder: Path, say: Say) -> Iterator[str]:
    broker = LocalBroker(folder / "kafka", announce=say)
    say(f"[demo] Apache Kafka listens on {broker.up()}")
    try:
        yield broker.address
    finally:
        broker.down()


@contextmanager
def _to_kafka(brokers: str, say: Say) -> Iterator[Send]:
    """Create the topics and yield a function that sends a record."""
    from kafka import KafkaProducer
    from kafka.admin import KafkaAdminClient, NewTopic
    from kafka.errors import KafkaError

    admin = KafkaAdminClient(bootstrap_servers=brokers)
    admin.create_topics([NewTopic(world.topic, 2, 1) for world in WORLDS])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=brokers, linger_ms=10)
    try:
        yield lambda topic, key, value: producer.send(topic, value, key)
    finally:
        try:
            producer.close(timeout=BROKER_PATIENCE_SECONDS)
        except KafkaError as error:  # the broker ended first, as after a signal to the whole process group
            say(f"[demo] the broker is gone; the last records were not sent: {error}")
            producer._sender.force_close()  # gives its records up: they would fail each further close
            producer._sender.join(BROKER_PATIENCE_SECONDS)


@contextmanager
def _to_memory() -> Iterator[Send]:
    yield lambda topic, key, value: memory_log(topic).append(value, key=key)

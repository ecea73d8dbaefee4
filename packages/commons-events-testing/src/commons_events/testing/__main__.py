"""``python -m commons_events.testing``: which real servers this machine can start, and one for play."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import textwrap
import threading

from commons_events.testing.services import SERVICES, KafkaOptions, RunningService, ServiceError

_WIDTH = 110


def _say(line: str = "") -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def list_services() -> int:
    """Print every way to every service: the first that is there, the others, and why some are not."""
    for name, service in SERVICES.items():
        survey = service.survey()
        taken = next((way for way, (there, _) in survey.items() if there), None)
        _say(f"{name}: {f'comes by {taken}' if taken else 'none here'}")
        for way, (there, what) in survey.items():
            mark = "*" if way == taken else "+" if there else "-"
            head = f"  {mark} {way:<12} "
            _say(
                textwrap.fill(
                    what, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False
                )
            )
    _say()
    _say("* is taken, + is there, - is not")
    return 0


def describe(running: RunningService) -> None:
    """Print where a service is, how it came and what it can't serve."""
    _say(f"{running.service} by {running.way}: {running.description}")
    _say(f"  address: {running.address}")
    for name, log in running.logs.items():
        _say(f"  log of {name}: {log}")
    for capability, reason in sorted(running.lacks.items()):
        _say(f"  can't serve {capability}: {reason}")


def up(name: str, options: KafkaOptions | None) -> int:
    """Start a service and keep it until Ctrl-C or SIGTERM."""
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    try:
        running = SERVICES[name].start(options)
    except ServiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    with running:
        describe(running)
        _say("Ctrl-C stops it.")
        done.wait()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m commons_events.testing", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("services", help="list what this machine can start, and how")
    start = commands.add_parser("up", help="start one and keep it running until Ctrl-C")
    start.add_argument("service", choices=sorted(SERVICES))
    start.add_argument("--brokers", type=int, default=1, metavar="N", help="kafka: how many brokers (default: 1)")
    start.add_argument("--secured", action="store_true", help="kafka: with listeners for SASL_SSL and mutual TLS")
    chosen = parser.parse_args(arguments)
    try:
        return _run(parser, chosen)
    except BrokenPipeError:  # of a reader such as head, which has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python itself would complain at its end
        return 1


def _run(parser: argparse.ArgumentParser, chosen: argparse.Namespace) -> int:
    if chosen.command == "services":
        return list_services()
    if chosen.brokers < 1:
        parser.error(f"--brokers must be 1 or more, not {chosen.brokers}")
    options = KafkaOptions(brokers=chosen.brokers, secured=chosen.secured)
    if chosen.service != "kafka" and options != KafkaOptions():
        parser.error(f"--brokers and --secured are kafka's; {chosen.service} has neither")
    return up(chosen.service, options if chosen.service == "kafka" else None)


if __name__ == "__main__":
    sys.exit(main())

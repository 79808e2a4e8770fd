#!/usr/bin/env python3
"""Asks Checkpost about a message on standard input, over the check socket (docs/check-protocol.md).

    check.py [--socket PATH] [--descriptor] SENDER RECIPIENT...

Prints what is to be done. Exit status: 0 taken (the message to hand on is on standard output), 1 refused for good,
75 try again later (EX_TEMPFAIL of sysexits.h), which is also the answer to everything that goes wrong.
"""

import argparse
import array
import os
import socket
import sys
import tempfile

HELLO = b"checkpost-check 1\0"
TRY_AGAIN = 75


class NotChecked(Exception):
    """Anything that is no answer. The sender is to try again."""


def ask(path, message, sender, recipients, can, by_descriptor, seconds=90):
    """Shows the message. The decision, the outcomes and the contents."""
    words = [("check", "check.py 1"), ("sender", sender)]
    words += [("recipient", recipient) for recipient in recipients]
    words += [("can", " ".join(can)), ("within", str(seconds))]
    if by_descriptor:
        words += [("content", "descriptor"), ("changed", "descriptor")]
    else:
        words += [("content", "inline %d" % len(message))]
    request = HELLO + b"".join(b"%s=%s\0" % (n.encode(), os.fsencode(v)) for n, v in words) + b"\0"

    with socket.socket(socket.AF_UNIX) as daemon:
        daemon.settimeout(seconds + 5)
        daemon.connect(path)
        if by_descriptor:
            with tempfile.TemporaryFile() as file:
                file.write(message)
                file.flush()
                sent = socket.send_fds(daemon, [request], [file.fileno()])
            daemon.sendall(request[sent:])
        else:
            daemon.sendall(request + message)
        answer = read_answer(daemon, message, len(recipients))
        # As late as possible: a real client hands the mail on first.
        daemon.sendall(b"done=carried\0\0")
        return answer


def read_answer(daemon, message, recipients):
    """Reads one answer, strictly."""
    received, descriptors = b"", []

    def more():
        nonlocal received
        octets, ancillary, flags, _ = daemon.recvmsg(65536, socket.CMSG_SPACE(64 * 4))
        if not octets or flags & socket.MSG_CTRUNC:
            raise NotChecked("the connection ended within an answer")
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
                descriptors.extend(numbers)
        received += octets

    while len(received) < len(HELLO) or b"\0\0" not in received:
        more()
    if not received.startswith(HELLO):
        raise NotChecked("not the check socket, or another version")
    end = received.index(b"\0\0")
    attributes = [attribute.split(b"=", 1) for attribute in received[len(HELLO) : end].split(b"\0")]
    behind = end + 2

    def put(length):
        nonlocal behind
        while len(received) < behind + length:
            more()
        behind += length
        return received[behind - length : behind]

    decision, outcomes, contents = None, [], []
    name, value = attributes[0]
    if name != b"answer":
        raise NotChecked(value.decode("utf-8", "replace"))
    for name, value in attributes[1:]:
        if name == b"decision":
            decision = value.decode()
        elif name == b"outcome":
            outcomes.append(value.decode())
        elif name == b"content" and value == b"same":
            contents.append({"octets": message, "sender": None, "added": []})
        elif name == b"content" and value == b"pieces":
            contents.append({"octets": b"", "sender": None, "added": []})
        elif name == b"content" and value == b"descriptor":
            with open(descriptors.pop(0), "rb") as file:
                contents.append({"octets": file.read(), "sender": None, "added": []})
        elif name == b"keep":
            offset, length = map(int, value.split(b" "))
            contents[-1]["octets"] += message[offset : offset + length]
        elif name == b"put":
            contents[-1]["octets"] += put(int(value))
        elif name == b"sender":
            contents[-1]["sender"] = value
        elif name == b"added":
            contents[-1]["added"].append(value)
        else:
            raise NotChecked("an answer with %s in it" % name.decode("utf-8", "replace"))
    if decision == "accept" and len(outcomes) != recipients:
        raise NotChecked("an answer without an outcome for each recipient")
    return decision, outcomes, contents


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--socket", default="/run/checkpost/check.sock")
    arguments.add_argument("--descriptor", action="store_true", help="send the message as a descriptor")
    arguments.add_argument("sender")
    arguments.add_argument("recipient", nargs="+")
    given = arguments.parse_args()
    message = sys.stdin.buffer.read()
    # One message comes out, and one answer is given: so much can be done with it.
    can = ["edit-headers", "edit-body", "drop-recipients", "refuse-in-session"]
    try:
        answer = ask(given.socket, message, given.sender, given.recipient, can, given.descriptor)
        decision, outcomes, contents = answer
        if decision == "accept":
            for recipient, outcome in zip(given.recipient, outcomes):
                print("%s: %s" % (recipient, outcome), file=sys.stderr)
            if contents:
                sys.stdout.buffer.write(contents[0]["octets"])
                sys.stdout.buffer.flush()
            return 0
        print(decision, file=sys.stderr)
        return 1 if decision and decision.startswith("reject ") else TRY_AGAIN
    except (NotChecked, OSError, ValueError, IndexError) as error:
        print("not checked: %s" % error, file=sys.stderr)
        return TRY_AGAIN


if __name__ == "__main__":
    sys.exit(main())

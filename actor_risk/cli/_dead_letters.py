"""`dead-letters`: what the worker could not use, to be looked at and sent again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec
from rich.table import Table

from actor_risk.cli._shared import console, home, progress_bar
from materialize.events import TOPICS
from materialize.personal import MASK, Personal
from materialize.quick_feast import import_feast_quickly
from materialize.stream import DeadLetter, DeadLetters

SHOWN_BYTES = 60
LETTERS_MAX = 100_000
"""As many of a topic's letters are held in memory, the newest."""

topic_option = click.option(
    "--topic", "topics", type=click.Choice(sorted(TOPICS)), multiple=True, help="Only this topic's letters; repeatable."
)
values_option = click.option(
    "--values", is_flag=True, help="Show the values of personal fields as well, for who may see them."
)
reason_option = click.option("--reason", "reasons", multiple=True, help="Only letters with this reason; repeatable.")


@click.group("dead-letters")
def dead_letters() -> None:
    """Look at the events that the stream worker could not use, and send them again.

    A letter keeps the reason, where in the log the event stood, and its bytes as they came. Mend what was wrong (a
    schema, a transformation), then replay the letters: they go to the end of their own topic, with their own key.
    """


@dead_letters.command("list")
@topic_option
@reason_option
@click.option("--limit", type=click.IntRange(1, LETTERS_MAX), default=20, show_default=True, help="The newest so many.")
@values_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, the bytes in base64.")
def list_letters(topics: Sequence[str], reasons: Sequence[str], limit: int, values: bool, as_json: bool) -> None:
    """Show the newest letters of each topic, oldest first, and how many there are of each reason.

    What the registry tags `pii` is shown as ***, and so are all bytes in which nobody can tell it from the rest.
    """
    shown, here = console(), home()
    personal = Personal(frozenset()) if values else _personal(here.registry)
    log = here.event_log()
    with closing(log), closing(DeadLetters(log)) as letters:
        found = {topic: _chosen(letters, topic, reasons) for topic in topics or sorted(TOPICS)}
        shows = {topic: [_masked(letter, personal) for letter in chosen[-limit:]] for topic, chosen in found.items()}
        done = {topic: letters.replayed(topic) for topic in found}
        older = {topic: letters.count(topic) - LETTERS_MAX for topic in found}
    for topic, chosen in found.items():
        if as_json:
            for letter, was in zip(shows[topic], chosen[-limit:], strict=True):
                click.echo(_line(letter, was.identity in done[topic]))
            continue
        shown.print(f"[bold]{topic}[/bold]: {len(chosen):,} letters" + _by_reason(chosen))
        if older[topic] > 0:
            shown.print(f"about {older[topic]:,} older ones were not looked at")
        if chosen:
            shown.print(_table(shows[topic], [letter.identity in done[topic] for letter in chosen[-limit:]]))


@dead_letters.command()
@topic_option
@reason_option
@click.option(
    "--limit",
    type=click.IntRange(1, LETTERS_MAX),
    default=LETTERS_MAX,
    show_default=True,
    help="The newest so many.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send nothing.")
@click.option("--again", is_flag=True, help="Send also what an earlier replay has sent.")
def replay(topics: Sequence[str], reasons: Sequence[str], limit: int, dry_run: bool, again: bool) -> None:
    """Send letters again, to the end of the topic that they came from.

    What has been sent is remembered, so that a second replay sends only what is new. A letter that is as wrong as
    before becomes a letter again, at another offset. An event that one view's transformation failed for was counted by
    the other views: they know it by its event_id for as long as it is among their row's newest, so replay
    `transformation_failed` soon.
    """
    shown = console()
    log = home().event_log()
    told, sent = "would be sent" if dry_run else "sent", 0
    with closing(log), closing(DeadLetters(log)) as letters, progress_bar(shown) as progress:
        for topic in topics or sorted(TOPICS):
            chosen = _chosen(letters, topic, reasons)[-limit:]
            known = set() if again else letters.replayed(topic)
            whole = [letter for letter in chosen if letter.can_be_replayed]
            fresh = [letter for letter in whole if letter.identity not in known]
            if fresh and not dry_run:
                task = progress.add_task(f"replay {topic}", total=len(fresh))
                letters.replay(fresh, lambda sent, task=task: progress.update(task, completed=sent))  # type: ignore[misc]
            shown.print(
                f"{topic}: {len(fresh):,} {told}{_by_reason(fresh)}, {len(whole) - len(fresh):,} sent before, "
                f"{len(chosen) - len(whole):,} cannot be (cut, or no letter)"
            )
            sent += len(fresh)
    shown.print(f"{sent:,} letters {told} in all")


def _chosen(letters: DeadLetters, topic: str, reasons: Sequence[str]) -> list[DeadLetter]:
    return [letter for letter in letters.list(topic, LETTERS_MAX) if not reasons or letter.reason in reasons]


def _personal(registry: Path) -> Personal:
    import_feast_quickly()
    from actor_risk.personal import personal_in

    return personal_in(registry)


def _masked(letter: DeadLetter, personal: Personal) -> DeadLetter:
    """The letter without what is personal in it. Its key is a value of one of its event's fields."""
    return msgspec.structs.replace(
        letter,
        detail=personal.text(letter.detail, letter.value),
        key=letter.key if personal.hides_nothing else MASK.encode(),
        value=personal.document(letter.value),
    )


def _line(letter: DeadLetter, is_replayed: bool) -> str:
    """A letter for programs: its own fields, and whether it was sent again."""
    fields = {**msgspec.structs.asdict(letter), "replayed": is_replayed}
    return msgspec.json.encode(fields).decode()


def _by_reason(letters: Sequence[DeadLetter]) -> str:
    counts = Counter(letter.reason for letter in letters).most_common()
    return f" ({', '.join(f'{count:,} {reason}' for reason, count in counts)})" if counts else ""


def _table(letters: Sequence[DeadLetter], replayed: Sequence[bool]) -> Table:
    table = Table("at (UTC)", "partition:offset", "reason", "detail", "bytes begin with", "", box=None)
    for letter, is_replayed in zip(letters, replayed, strict=True):
        when = datetime.fromtimestamp(letter.at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
        begin = repr(letter.value[:SHOWN_BYTES])[1:] + ("…" if len(letter.value) > SHOWN_BYTES else "")
        place = f"{letter.partition}:{letter.offset}"
        row = (when, place, letter.reason, letter.detail, begin, "replayed" if is_replayed else "")
        table.add_row(*(text.replace("[", r"\[") for text in row))
    return table

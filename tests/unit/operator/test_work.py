"""The work queue: due keys, one worker a key, nothing lost that is added meanwhile."""

import threading
import time

from tests.waiting import PATIENCE_S

from psephos_operator.kube.workqueue import WorkQueue


def test_a_key_is_handed_out_once_and_again_if_it_was_added_meanwhile() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    queue.add("a")
    assert queue.get() == "a"
    queue.add("a")  # something happened while it is worked on
    queue.add("b")
    assert queue.get() == "b", "nobody else gets a"
    queue.done("a")
    assert queue.get() == "a"


def test_the_sooner_of_two_times_counts() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a", 3600)
    queue.add("a", 0)
    assert queue.get() == "a"
    queue.done("a")
    queue.add("b", 0)
    queue.add("b", 3600)
    assert queue.get() == "b"
    assert queue.waiting == 0


def test_keys_come_when_they_are_due() -> None:
    queue: WorkQueue[str] = WorkQueue()
    begun = time.monotonic()
    queue.add("late", 0.2)
    queue.add("soon", 0.0)
    assert queue.get() == "soon"
    assert queue.get() == "late"
    assert time.monotonic() - begun >= 0.2


def test_who_waits_is_woken_by_a_key_and_by_the_end() -> None:
    queue: WorkQueue[str] = WorkQueue()
    found: list[str | None] = []
    workers = [threading.Thread(target=lambda: found.append(queue.get())) for _ in range(2)]
    for worker in workers:
        worker.start()
    queue.add("a")
    deadline = time.monotonic() + PATIENCE_S
    while not found and time.monotonic() < deadline:
        time.sleep(0.01)
    assert found == ["a"]
    queue.close()
    for worker in workers:
        worker.join(PATIENCE_S)
    assert found == ["a", None]


def test_no_key_is_ever_worked_on_twice_at_once_and_none_is_forgotten() -> None:
    queue: WorkQueue[int] = WorkQueue()
    busy: set[int] = set()
    looked = dict.fromkeys(range(20), 0)
    lock, clashes = threading.Lock(), []

    def work() -> None:
        while (key := queue.get()) is not None:
            with lock:
                clashes.extend([key] if key in busy else [])
                busy.add(key)
            time.sleep(0.001)
            with lock:
                busy.discard(key)
                looked[key] += 1
            queue.done(key)
            if looked[key] < 5:
                queue.add(key, 0.001)

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for _ in range(3):
        for key in looked:
            queue.add(key)
    deadline = time.monotonic() + PATIENCE_S
    while min(looked.values()) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    queue.close()
    for worker in workers:
        worker.join(PATIENCE_S)
    assert clashes == []
    assert min(looked.values()) >= 5

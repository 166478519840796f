"""The door for many machines: a producer that sends tasks, workers that do them.

The broker (Redis, or RabbitMQ) only carries tasks and answers; the storage decides what is done.
Workers write results there whole or not at all, and the producer sends pictures again whose results
are missing. So nothing is lost if a worker is killed, a task is run twice, or the broker loses its
data.

::

    order.py       what tasks and answers contain, and their checks: neither contains code
    broker.py      Celery's settings, and connections

    producer.py    in the place of an engine: jobs in, tasks out; answers in, outcomes out
    connection.py  the producer's connection to the broker
    inflight.py    pictures that were sent and have no outcome yet
    lookup.py      looks up in the storage whether their results exist

    worker.py      Celery's worker, and `bgx worker --check`
    tasks.py       what Celery calls in the worker's processes
    process.py     such a process: one engine
    answers.py     what it sends to producers: outcomes, refusals, heartbeats
"""

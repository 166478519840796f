"""The door for many machines: a producer that sends tasks, workers that do them.

The broker (Redis, or RabbitMQ) carries tasks and answers and is trusted with nothing else. What is
done is told by the storage: results are put there create-only or whole, and the producer sends
again what is missing. So nothing is lost where a worker is killed, a task is run twice, or the
broker is emptied.

::

    order.py     what a task and an answer hold; both are checked, neither holds code
    broker.py    Celery's settings, and connections
    producer.py  in the place of an engine: jobs in, tasks out; answers in, outcomes out
    worker.py    Celery's worker, and `bgx worker --check`
    tasks.py     what Celery calls in the worker's processes
    hand.py      such a process: one engine, and what it tells the producer
"""

"""Makes faster copies of networks: in 8 bits for the CPU, in half precision for a GPU.

::

    prepared network, tensors of photos
        │
        ├─ int8    8 bits: graph (reads the network and its ranges), equalize, qdq (writes)
        └─ fp16    half precision
        │
    gate       compares the copy with float32 on photos held back: difference, IoU, speed
        │
    copies     keeps a copy that passed, with a record; finds it when the network is opened

:mod:`bgx.run.optimize` reads the photos and runs these steps.
"""
